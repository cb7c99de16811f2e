"""Chat and legacy completions: the stream adds up to the document, and so do its tokens."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo import chat
from proxy.demo.events import Frame, Head
from proxy.demo.reply import Reply

HEAD = Head("chatcmpl-0123456789abcdef0123456789abcdef", 1_700_000_000, "demo-small", 7)
replies = st.lists(
    st.builds(
        Reply,
        st.sampled_from(["text", "tool"]),
        st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6).map(tuple),
        st.booleans(),
        st.just("lookup"),
    ),
    min_size=1,
    max_size=3,
)


def decode(frames: list[Frame]) -> list[dict[str, Any]]:
    return [orjson.loads(frame.data.removeprefix(b"data: ")) for frame in frames]


@given(replies, st.booleans())
def test_frames_when_joined_then_equal_the_document(wanted: list[Reply], include_usage: bool) -> None:
    frames = list(chat.frames(HEAD, wanted, include_usage))
    document = chat.document(HEAD, wanted)
    texts, finishes = [""] * len(wanted), [None] * len(wanted)
    for chunk in decode(frames):
        for choice in chunk["choices"]:
            delta = choice["delta"]
            call = delta.get("tool_calls", [{}])[0].get("function", {})
            texts[choice["index"]] += (delta.get("content") or "") + call.get("arguments", "")
            finishes[choice["index"]] = choice["finish_reason"]
    assert texts == [reply.text for reply in wanted]
    assert finishes == [choice["finish_reason"] for choice in document["choices"]]
    assert sum(frame.tokens for frame in frames) == document["usage"]["completion_tokens"]


@given(replies)
def test_frames_when_usage_is_asked_for_then_null_until_the_last_chunk(wanted: list[Reply]) -> None:
    *chunks, last = decode(list(chat.frames(HEAD, wanted, True)))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == chat.usage(HEAD, wanted)


@given(replies)
def test_frames_when_usage_is_not_asked_for_then_no_such_member(wanted: list[Reply]) -> None:
    assert all("usage" not in chunk for chunk in decode(list(chat.frames(HEAD, wanted, False))))


@given(replies, st.booleans())
def test_text_frames_when_joined_then_equal_the_document(wanted: list[Reply], include_usage: bool) -> None:
    texts = [""] * len(wanted)
    for chunk in decode(list(chat.text_frames(HEAD, wanted, include_usage))):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in chat.text_document(HEAD, wanted)["choices"]]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("text", ("a",), True), "stop"),
        (Reply("text", ("a",), False), "length"),
        (Reply("tool", ("{}",), True, "f"), "tool_calls"),
    ],
)
def test_document_when_reply_ends_then_finish_reason(reply: Reply, reason: str) -> None:
    choice = chat.document(HEAD, [reply])["choices"][0]
    assert choice["finish_reason"] == reason
    assert ("tool_calls" in choice["message"]) == (reply.kind == "tool")
