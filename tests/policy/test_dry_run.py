"""What the policy would do, without a provider."""

import pytest

from proxy.config.policy import Policy as Settings
from proxy.policy.dry_run import dry_run
from tests.policy.policies import policy_of
from tests.policy.secrets import EMAIL, HIGH, MEDIUM


@pytest.mark.parametrize(
    ("text", "direction", "action", "result"),
    [
        ("hello", "prompt", "allow", "hello"),
        (f"to {EMAIL}", "prompt", "flag", f"to {EMAIL}"),
        (f"k {MEDIUM}", "prompt", "redact", "k ghp_********"),
        (f"k {HIGH}", "prompt", "block", None),
        (f"k {HIGH}", "output", "redact", "k ghp_********"),
        ("hello", "output", "allow", "hello"),
    ],
)
def test_dry_run_when_given_a_text_then_it_says_what_would_happen(text, direction, action, result):
    ran = dry_run(policy_of(), text, direction, Settings())
    assert (ran.action, ran.result) == (action, result)
    assert bool(ran.sightings) == (action != "allow")


def test_dry_run_when_given_a_body_then_places_are_named():
    ran = dry_run(policy_of(), {"messages": [{"content": MEDIUM}]}, "prompt", Settings())
    assert ran.result == {"messages": [{"content": "ghp_********"}]}
    assert [each.place for each in ran.sightings] == ["messages[0].content"]


def test_dry_run_when_a_part_cannot_be_scanned_then_the_configuration_decides():
    body = {"image": "data:image/png;base64," + "iVBORw0K" * 20}
    passed, denied = (dry_run(policy_of(), body, "prompt", Settings(unscannable=how)) for how in ("allow", "deny"))
    assert (passed.action, passed.result, denied.action, denied.result) == ("allow", body, "block", None)
    assert [part.reason for part in denied.unscanned] == ["media"]
