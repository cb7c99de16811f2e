import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.config.quota import Quota
from proxy.quota.limits import ProjectQuota, parse, validate

DEFAULTS = Quota()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)
NAMES = [
    "onDatabaseOutage",
    "requestsPerMinute",
    "tokensPerMinute",
    "concurrentRequests",
    "maxTokensDaily",
    "maxCostDaily",
]


def test_parse_when_everything_is_said_then_it_counts():
    text = (
        '{"onDatabaseOutage": "capped:5.000000001", "requestsPerMinute": 60, "tokensPerMinute": 90000,'
        ' "concurrentRequests": 8, "maxTokensDaily": 0, "maxCostDaily": 10.5}'
    )
    assert parse(text, DEFAULTS) == (ProjectQuota("capped", 5_000_000_001, 60, 90_000, 8), ())


@pytest.mark.parametrize("text", [None, "null", "{}"])
def test_parse_when_nothing_is_said_then_the_configuration_counts_and_windows_are_off(text):
    assert parse(text, Quota(on_database_outage="capped:0.5")) == (ProjectQuota("capped", 500_000_000), ())
    assert parse(text, DEFAULTS) == (ProjectQuota("lease"), ())


@pytest.mark.parametrize("name", NAMES[1:4])
def test_has_short_windows_when_one_limit_is_set_then_true_and_null_takes_it_off(name):
    assert parse(f'{{"{name}": 1}}', DEFAULTS)[0].has_short_windows
    assert parse(f'{{"{name}": null}}', DEFAULTS) == (ProjectQuota("lease"), ())
    assert not ProjectQuota("lease").has_short_windows


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}={value}")
        for name, values in {
            "onDatabaseOutage": ["null", "1", '"shut"', '"capped"', '"capped:-1"', '"capped:1e3"', '"open\\n"', "[]"],
            "requestsPerMinute": ["0", "-1", "1.5", "60.0", "true", '"60"', "2147483648", "{}", "1e400"],
            "tokensPerMinute": ["0", "false"],
            "concurrentRequests": ["0", "[1]"],
            "maxTokensDaily": ["null", "-1", "1.0", "true", "1000000000000001", '"5"'],
            "maxCostDaily": ["null", "-0.1", "true", '"5"', "1000000.1", "1e-10", "1e400", "NaN", "1e-999999999"],
        }.items()
        for value in values
    ],
)
def test_parse_when_a_member_is_wrong_then_it_alone_keeps_its_default_and_no_value_is_shown(name, value):
    other = "concurrentRequests" if name != "concurrentRequests" else "requestsPerMinute"
    rules, problems = parse(f'{{"{name}": {value}, "{other}": 3}}', DEFAULTS)
    assert rules == parse(f'{{"{other}": 3}}', DEFAULTS)[0]
    assert [problem.partition(" ")[0] for problem in problems] == [name]
    assert problems[0].startswith(f"{name} must be ")


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'a': 1}", "[" * 100_000, '{"requestsPerMinute": ' + "1" * 5000 + "}", '{"a": 1e' + "9" * 30 + "}"],
    ids=["empty", "cut", "quotes", "deep", "long", "exponent"],
)
def test_parse_when_the_text_cannot_be_read_then_one_problem_and_the_defaults(text):
    assert parse(text, DEFAULTS) == (ProjectQuota("lease"), ("quota is not a JSON document that can be read",))


@pytest.mark.parametrize("text", ["[]", "5", '"lease"', "true"])
def test_parse_when_it_is_no_object_then_it_says_so(text):
    assert parse(text, DEFAULTS) == (ProjectQuota("lease"), ("quota must be a JSON object",))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("requestPerMinute", "quota has no member requestPerMinute; did you mean requestsPerMinute?"),
        ("tokens_per_minute", "quota has no member tokens_per_minute; did you mean tokensPerMinute?"),
        ("colour", "quota has no member colour"),
        ("a\nb", "quota has no member a?b"),
    ],
    ids=["slip", "case", "other", "control"],
)
def test_validate_when_a_name_is_unknown_then_the_nearest_is_named(name, problem):
    assert validate({name: 1}) == (problem,)


@pytest.mark.parametrize("value", [0, 10, 10.5, 1e-9, Decimal("1E+2"), 1_000_000], ids=str)
def test_validate_when_a_cost_is_right_in_any_number_type_then_nothing_is_wrong(value):
    assert validate({"maxCostDaily": value}) == ()
    assert validate(None) == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1e-10, True], ids=str)
def test_validate_when_a_cost_is_wrong_in_any_number_type_then_it_is_named(value):
    assert len(validate({"maxCostDaily": value})) == 1


@settings(deadline=None)
@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_parse_never_raises(text):
    rules, problems = parse(text, DEFAULTS)
    assert rules.outage in ("closed", "lease", "open", "capped")
    assert all("\n" not in problem for problem in problems)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_parse_and_validate_find_the_same_problems(document):
    text = json.dumps(document)
    assert parse(text, DEFAULTS)[1] == validate(json.loads(text))


@settings(deadline=None)
@given(st.from_regex(r"(closed|lease|open|capped:[0-9.]{1,12})", fullmatch=True))
def test_parse_when_an_outage_policy_is_judged_then_as_in_the_configuration(policy):
    try:
        Quota(on_database_outage=policy)
        expected = 0
    except ValidationError:
        expected = 1
    assert len(validate({"onDatabaseOutage": policy})) == expected


def test_validate_when_there_are_many_mistakes_then_the_first_are_told():
    assert len(validate({f"maxTokenDaily{number:05}": 1 for number in range(30_000)})) == 20
