"""What a project decides is read member by member: what is right counts, what is wrong is named without its value."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.project import DEFAULT, parse, validate

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["routing", "security", "features", "quota", "maxLayer", "scanPrompts", "blockedKeywords"])


def test_parse_when_everything_is_said_then_it_counts():
    settings, problems = parse(
        {
            "routing": {"defaultLayer": "L1", "maxLayer": "L2", "maxCostPerRequest": 0.05, "allowedModels": ["gpt-*"]},
            "security": {"scanPrompts": False, "redactSecrets": True, "blockedKeywords": ["zeus"]},
            "features": {"enableCache": True},
            "admission": {"priority": "critical"},
            "quota": {"maxTokensDaily": 1},
            "timeZone": "UTC",
        }
    )
    assert problems == ()
    assert settings.routing.default_layer == "L1"
    assert settings.routing.max_cost_per_request == Decimal("0.05")
    assert settings.routing.allowed_models == ("gpt-*",)
    assert settings.security.scan_prompts is False
    assert settings.security.scan_outputs is None
    assert settings.security.blocked_keywords == ("zeus",)
    assert settings.features.enable_cache
    assert not settings.features.enable_cross_check
    assert settings.admission.may_be_critical
    assert not settings.admission.priority_header


@pytest.mark.parametrize("document", [{}, {"routing": {}}, {"security": None}, {"quota": {"x": 1}}], ids=str)
def test_parse_when_nothing_is_said_then_nothing_is_decided(document):
    assert parse(document) == (DEFAULT, ())


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "config must be a JSON object"),
        ({"routting": {}}, "config has no member routting; did you mean routing?"),
        ({"routing": []}, "routing must be a JSON object"),
        ({"routing": {"maxLayr": "L1"}}, "routing has no member maxLayr; did you mean maxLayer?"),
        ({"routing": {"max_layer": 7}}, "routing.max_layer: Input should be 'L0', 'L1', 'L2' or 'L3'"),
        ({"routing": {"maxLayer": "L9"}}, "routing.maxLayer: Input should be 'L0', 'L1', 'L2' or 'L3'"),
        ({"routing": {"maxCostPerRequest": -1}}, "routing.maxCostPerRequest: "),
        ({"security": {"blockedKeywords": ["a", ""]}}, "security.blockedKeywords[1]: "),
        ({"features": {"enableCache": "perhaps"}}, "features.enableCache: "),
        ({"admission": {"priority": "urgent"}}, "admission.priority: Input should be 'normal' or 'critical'"),
    ],
    ids=str,
)
def test_validate_when_a_member_is_wrong_then_it_is_named(document, problem):
    assert any(found.startswith(problem) for found in validate(document)), validate(document)


def test_parse_when_one_member_is_wrong_then_the_others_count_and_no_value_is_quoted():
    settings, problems = parse({"security": {"scanPrompts": "sk-hidden", "scanOutputs": False, "redactSecret": True}})
    assert settings.security.scan_outputs is False
    assert settings.security.scan_prompts is None
    assert len(problems) == 2
    assert "sk-hidden" not in str(problems)


def test_parse_when_an_entry_of_a_member_is_wrong_then_its_other_entries_count():
    settings, problems = parse(
        {
            "routing": {"allowedModels": ["gpt-4o", 7]},
            "security": {"secretPatterns": ["a+b", "(", "c+d"], "promptActions": {"pii": "block", "secret": "hide"}},
        }
    )
    assert settings.routing.allowed_models == ("gpt-4o",)
    assert settings.security.secret_patterns == ("a+b", "c+d")
    assert settings.security.prompt_actions == {"pii": "block"}
    assert [problem.partition(":")[0] for problem in problems] == [
        "routing.allowedModels[1]",
        "security.promptActions.secret",
        "security.secretPatterns[1]",
    ]


@given(JSON | st.dictionaries(NAMES, st.dictionaries(NAMES, JSON, max_size=3) | JSON, max_size=4))
def test_parse_when_anything_is_said_then_it_answers(document):
    settings, problems = parse(document)
    assert settings.security.model_dump() and isinstance(problems, tuple)


def test_validate_when_there_are_many_mistakes_then_the_first_are_told_and_the_others_counted():
    strangers = {f"blockedKeyword{number:05}": 1 for number in range(30_000)}
    problems = validate({**strangers, "security": strangers, "features": {**strangers, "enableCache": True}})
    for part in ("config", "security", "features"):
        told = [line for line in problems if line.startswith(f"{part} has")]
        assert len(told) == 21 and told[-1] == f"{part} has 29980 more mistakes"
    assert parse({"features": {**strangers, "enableCache": True}})[0].features.enable_cache
