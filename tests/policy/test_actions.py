"""Who decides what is done about a finding."""

import pytest

from proxy.nouns.findings import STEP, Finding
from proxy.policy.actions import DEFAULTS, Actions


def finding(category: str, severity: str, rule: str = "rule-1") -> Finding:
    return Finding(rule, category, severity, 0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("direction", "category", "severity", "action"),
    [
        ("prompt", "secret", "high", "block"),
        ("prompt", "pii", "high", "block"),
        ("prompt", "secret", "medium", "redact"),
        ("prompt", "secret", "low", "flag"),
        ("prompt", "pii", "medium", "flag"),
        ("prompt", "keyword", "high", "flag"),
        ("prompt", "command", "high", "flag"),
        ("output", "secret", "high", "redact"),
        ("output", "secret", "medium", "redact"),
        ("output", "pii", "high", "redact"),
        ("output", "pii", "medium", "flag"),
        ("output", "command", "high", "flag"),
    ],
)
def test_action_when_nobody_says_anything_then_it_is_the_default(direction, category, severity, action):
    assert Actions((DEFAULTS[direction],), redacts=True)(finding(category, severity)) == action


def test_action_when_masking_is_off_then_what_would_be_redacted_is_flagged():
    actions = Actions(({"secret": "redact", "pii": "block"},), redacts=False)
    assert actions(finding("secret", "high")) == "flag"
    assert actions(finding("pii", "high")) == "block"


def test_action_when_several_selectors_fit_then_the_narrowest_wins():
    actions = Actions(({"secret": "flag", "secret.high": "block", "rule-1": "allow"},), redacts=True)
    assert actions(finding("secret", "high")) == "allow"
    assert actions(finding("secret", "high", "rule-2")) == "block"
    assert actions(finding("secret", "low", "rule-2")) == "flag"


def test_action_when_a_nearer_layer_says_anything_then_it_wins_over_finer_things_below():
    actions = Actions(
        ({"secret": "flag"}, {}, {"secret.high": "block", "rule-1": "block", "pii": "redact"}), redacts=True
    )
    assert actions(finding("secret", "high")) == "flag"
    assert actions(finding("pii", "low", "rule-2")) == "redact"


def test_actions_of_many_findings_are_those_of_each():
    layers = ({"rule-7": "allow", "secret.high": "block"},)
    found = [finding("secret", ("high", "low")[at % 3 == 0], f"rule-{at % 11}") for at in range(2 * STEP + 5)]
    one_by_one = [Actions(layers, redacts=True)(each) for each in found]
    assert Actions(layers, redacts=True).of_all(found) == one_by_one
