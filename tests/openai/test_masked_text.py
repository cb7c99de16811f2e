import json

import pytest

from proxy.openai.masked_text import alone, repeats, with_texts

TOKENS = {"content": [{"token": "a"}]}
CHUNK = {
    "id": "c",
    "model": "m",
    "usage": {"x": 1},
    "choices": [
        {"index": 4},
        {"index": 7, "finish_reason": "stop", "logprobs": TOKENS, "delta": {"role": "assistant", "content": "a"}},
    ],
}


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        (CHUNK, ("choices", 1, "delta", "content"), {("choices", 1, "logprobs"): b"null"}),
        ({"delta": "a", "logprobs": [1]}, ("delta",), {("logprobs",): b"[]"}),
        ({"delta": "a", "logprobs": []}, ("delta",), {}),
        ({"content": "a", "tokens": [1], "token_ids": 3}, ("content",), {("tokens",): b"null"}),
        ({"tokens": [{"text": "a"}]}, ("tokens", 0, "text"), {}),
        (["a"], (0,), {}),
    ],
)
def test_repeats_when_a_text_is_masked_then_what_spells_it_again_goes(document, path, expected):
    assert repeats(document, path) == expected


def test_texts_when_written_anew_then_nothing_else_changes_but_their_repeats():
    data = json.dumps(CHUNK, indent=1).encode()
    changed = json.loads(with_texts(data, CHUNK, {("choices", 1, "delta", "content"): "***"}))
    expected = json.loads(data)
    expected["choices"][1] |= {"logprobs": None, "delta": {"role": "assistant", "content": "***"}}
    assert changed == expected


def test_event_when_it_carries_a_rest_alone_then_nothing_is_said_twice():
    document, path = alone(CHUNK, ("choices", 1, "delta", "content"), "rest")
    assert path == ("choices", 0, "delta", "content")
    assert document == {
        "id": "c",
        "model": "m",
        "choices": [{"index": 7, "finish_reason": None, "delta": {"content": "rest"}}],
    }


def test_event_when_it_is_a_list_or_one_delta_then_its_identity_stays():
    assert alone([1, {"text": "a", "id": "x", "type": "t"}], (1, "text"), "r") == (
        [{"type": "t", "text": "r"}],
        (0, "text"),
    )
    event = {"type": "x.delta", "item_id": "i", "delta": "a", "logprobs": [1]}
    assert alone(event, ("delta",), "r") == ({"type": "x.delta", "item_id": "i", "delta": "r"}, ("delta",))
