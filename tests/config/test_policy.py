"""The keys of the policy."""

import pytest
from pydantic import ValidationError

from proxy.config.policy import Policy


@pytest.mark.parametrize("selector", ["secret", "pii.high", "github-token", "keyword-0a1b2c3d", "my_rule"])
def test_actions_when_the_selector_can_be_one_then_it_is_taken(selector):
    assert Policy(prompt_actions={selector: "block"}).prompt_actions == {selector: "block"}


@pytest.mark.parametrize("selector", ["", "secret.worst", "github-token.high", "Secret", "a b", ".high"])
def test_actions_when_the_selector_is_none_then_the_error_says_what_is(selector):
    with pytest.raises(ValidationError, match=r"must be the id of a rule, a category"):
        Policy(output_actions={selector: "block"})


def test_actions_when_the_action_is_none_then_it_is_refused():
    with pytest.raises(ValidationError, match="'allow', 'flag', 'redact' or 'block'"):
        Policy(prompt_actions={"secret": "mask"})
