"""What log probabilities spell, in every form; nothing raises."""

from typing import Any

import pytest

from proxy.openai.token_texts import emptied, spelled


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"content": [{"token": "a"}, {"token": "b"}], "refusal": None}, "ab"),
        ({"content": None, "refusal": [{"token": "no"}]}, "no"),
        ({"tokens": ["a", " b"], "token_logprobs": [-0.1, -0.2], "top_logprobs": [{"c": -0.3}]}, "a b"),
        ([{"token": "a", "top_logprobs": [{"token": "z"}]}, {"token": "b"}], "ab"),
        ({"content": [{"token": 3}, None, 7, {"bytes": [1]}]}, ""),
        ({"content": {"token": "a"}}, ""),
        (None, ""),
        ("text", ""),
        (-0.5, ""),
    ],
)
def test_log_probabilities_when_they_are_of_any_form_then_their_tokens_are_joined(value: Any, expected: str) -> None:
    assert spelled(value) == expected


def test_member_when_it_is_emptied_then_it_keeps_its_form_where_clients_need_it() -> None:
    assert (emptied("logprobs", [1]), emptied("logprobs", {}), emptied("tokens", [1])) == (b"[]", b"null", b"null")
