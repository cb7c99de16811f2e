"""Reading whole answers, and the ends of those too large for that."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Dialect, Meter, Usage
from proxy.openai.response import END_BYTES, inspect, inspect_ends

USAGE = {"prompt_tokens": 9, "completion_tokens": 3}
CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hé"}, "finish_reason": "stop"},
        {"index": 1, "message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"},
    ],
    "usage": USAGE,
}
MESSAGE = [{"text": "abc"}, {"type": "tool_use", "input": {"a": 1}}, {"thinking": "xy"}, None, {"input": {}}]
DEEP = b'{"type":"message","content":[{"input":' + b"[" * 1000 + b"]" * 1000 + b"}]}"
RESPONSE = {
    "id": "resp_1",
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "abc"}]},
        {"type": "function_call", "call_id": "c", "name": "f"},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 7},
}


def read(dialect: Dialect, body: Any) -> Meter:
    meter = Meter()
    inspect(dialect, body if isinstance(body, bytes) else json.dumps(body).encode(), meter)
    return meter


def test_inspect_when_it_is_a_chat_then_everything_is_metered() -> None:
    meter = read("chat", CHAT)
    assert (meter.response_id, meter.response_model, meter.usage) == ("chatcmpl-1", "gpt-4o", Usage(9, 3))
    assert (meter.output_text_bytes, meter.finish_reasons, meter.tool_calls[0].name) == (5, ["stop", "tool_calls"], "f")
    assert (meter.terminated, meter.stream_error) == (True, None)


def test_inspect_when_it_is_a_response_then_everything_is_metered() -> None:
    meter = read("responses", RESPONSE)
    assert (meter.response_id, meter.usage, meter.finish_reasons) == ("resp_1", Usage(5, 7), ["completed"])
    assert (meter.output_text_bytes, meter.tool_calls[0].id) == (3, "c")


@pytest.mark.parametrize(
    ("dialect", "body", "usage", "size"),
    [
        ("completions", {"choices": [{"text": "abc"}], "usage": USAGE}, Usage(9, 3), 3),
        ("embeddings", {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8), 0),
        ("images", {"data": [{}, {}]}, Usage(images=2), 0),
        (
            "images",
            {"data": [{}], "usage": {"input_tokens": 5, "output_tokens": 6}},
            Usage(5, 6, image_output_tokens=6),
            0,
        ),
        ("audio", {"text": "abc", "usage": {"type": "duration", "seconds": 3}}, Usage(audio_seconds=3.0), 3),
        ("audio", {"text": "abc", "duration": 2.5, "segments": []}, Usage(audio_seconds=2.5), 3),
        ("audio", {"text": "abc"}, None, 3),
        ("generic", {"usage": USAGE}, Usage(9, 3), 0),
        ("generic", {"type": "message", "content": MESSAGE, "usage": {"input_tokens": 9}}, Usage(9), 12),
        ("generic", DEEP, None, 0),
        ("none", CHAT, None, 0),
        ("none", {"results": []}, None, 0),
        ("chat", CHAT | {"usage": {"prompt_tokens": -1}}, None, 5),
        ("chat", b"not JSON", None, 0),
        ("chat", b"[]", None, 0),
        ("chat", b"", None, 0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_inspect_when_an_answer_is_given_then_usage_and_text(dialect: Dialect, body: Any, usage, size: int) -> None:
    meter = read(dialect, body)
    assert (meter.usage, meter.output_text_bytes, meter.terminated) == (usage, size, True)


def test_inspect_when_the_answer_is_an_error_then_its_code_is_noted() -> None:
    assert read("chat", {"error": {"code": "model_not_found"}}).stream_error == "model_not_found"


def ends(dialect: Dialect, body: bytes) -> Meter:
    meter = Meter()
    inspect_ends(dialect, body[:END_BYTES], body[-END_BYTES:], meter)
    return meter


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("body", "identity", "usage"),
    [
        (
            {"object": "list", "data": [[0.1] * 60_000], "model": "e", "usage": {"prompt_tokens": 8}},
            (None, "e"),
            Usage(8),
        ),
        (
            {"id": "i", "model": "m", "data": ["A" * 200_000], "usage": {"input_tokens": 5}, "x": [1]},
            ("i", "m"),
            Usage(5),
        ),
        ({"id": "i", "model": "m", "data": [["A" * 200_000, {"usage": {"input_tokens": 5}}]]}, ("i", "m"), None),
        ({"data": [{"id": "inner", "model": "inner", "usage": {"input_tokens": 5}}] * 3000}, (None, None), None),
        ({"data": "A" * 200_000 + '","usage":{"input_tokens":5}}'}, (None, None), None),
        ({"data": "A" * 200_000, "usage": {"input_tokens": -5}}, (None, None), None),
        ({"data": "A" * 200_000, "usage": None, "id": "late"}, ("late", None), None),
    ],
    ids=range(7),
)
def test_inspect_ends_when_the_answer_is_large_then_only_its_own_members_count(body, identity, usage, indent) -> None:
    meter = ends("embeddings", json.dumps(body, indent=indent).encode())
    assert (meter.response_id, meter.response_model) == identity
    assert (meter.usage, meter.terminated) == (usage, True)


def test_inspect_ends_when_usage_was_charged_before_then_it_is_not_read() -> None:
    meter = ends("none", json.dumps({"id": "i", "data": "A" * 200_000, "usage": {"input_tokens": 5}}).encode())
    assert (meter.response_id, meter.usage) == ("i", None)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_inspect_ends_when_the_ends_are_anything_then_it_never_raises(head: bytes, tail: bytes) -> None:
    meter = Meter()
    inspect_ends("chat", head, tail, meter)
    inspect_ends("chat", b'{"id":' + head, b',"usage":' + tail, meter)
    inspect("chat", head, meter)
    assert meter.terminated


VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.sampled_from(['"usage":{}', ',"usage":{"input_tokens":7}}', "\\", '"']),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "id", "model", "input_tokens", "a"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["id", "data", "model", "usage", "x"]), VALUES), st.integers(1, 200))
def test_inspect_ends_when_any_answer_is_cut_then_it_never_says_more_than_the_whole(body: Any, keep: int) -> None:
    text = json.dumps(body).encode()
    whole, part = Meter(), Meter()
    inspect("generic", text, whole)
    inspect_ends("generic", text[:keep], text[-keep:], part)
    assert part.usage in (None, whole.usage)
    assert part.response_id in (None, whole.response_id)
    assert part.response_model in (None, whole.response_model)
