"""Sizes of what the model reads."""

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Limits
from proxy.openai.input_text import MEDIA_PART_BYTES, input_text_bytes, text_bound
from proxy.openai.operations import match
from proxy.openai.request import parse_empty, parse_json

CHAT = match("POST", "/v1/chat/completions", False)
PICTURE = "data:image/png;base64," + "A" * 50_000


def message(content: object) -> dict[str, object]:
    return {"messages": [{"content": content}]}


@pytest.mark.parametrize(
    ("document", "size"),
    [
        ({}, 0),
        ({"model": "gpt-4o", "user": "somebody", "metadata": {"a": "b"}}, 0),
        (message("hello"), 5),
        (message("é😀"), 6),
        (message("\ud83d"), 3),
        (message(None), 0),
        (message([{"type": "text", "text": "abc"}, {"type": "text", "text": "de"}]), 5),
        (message([{"type": "image_url", "image_url": {"url": PICTURE}}]), MEDIA_PART_BYTES),
        (message([{"type": "input_audio", "input_audio": {"data": "A" * 9999}}]), MEDIA_PART_BYTES),
        (message([{"type": "file", "file": {"file_data": "A" * 9999}}]), MEDIA_PART_BYTES),
        (message([{"type": {"odd": 1}, "text": "abc"}]), 3),
        ({"prompt": PICTURE}, MEDIA_PART_BYTES),
        ({"prompt": "data:text, not a picture"}, 24),
        ({"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "42"}]}, 6),
        ({"messages": [{"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}]}, 3),
        ({"input": "abc", "instructions": "de"}, 5),
        ({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "abc"}]}]}, 7),
        ({"input": [{"type": "input_image", "image_url": PICTURE}]}, MEDIA_PART_BYTES),
        ({"input": ["ab", "cd"]}, 4),
        ({"input": [1, 2, 3]}, 12),
        ({"input": [[1, 2], [3]]}, 12),
        ({"input": [1, "abc", None, 2.5, True]}, 3),
        ({"prompt": [], "suffix": "abc"}, 3),
        ({"tools": [{"a": "b"}]}, 11),
        ({"response_format": {"type": "text"}}, 15),
        ({"tools": [{"a": "\ud83d"}]}, 3),
        ({"tools": None, "text": {}}, 0),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_input_text_bytes_when_a_document_is_given_then_its_text_counts(document, size) -> None:
    assert input_text_bytes(document) == size


@given(st.lists(st.text(), max_size=20))
def test_input_text_bytes_when_text_is_spread_over_parts_then_the_sum_counts(texts: list[str]) -> None:
    parts = [{"type": "text", "text": text} for text in texts]
    assert input_text_bytes(message(parts)) == sum(len(text.encode()) for text in texts)


def test_input_text_bytes_when_there_are_very_many_values_then_linear_time() -> None:
    ids = list(range(1_000_000))
    began = time.process_time()
    assert input_text_bytes({"input": ids}) == 4_000_000
    assert time.process_time() - began < 0.5


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text()}), max_size=4
)


@given(MESSAGES, st.booleans())
def test_text_bound_when_there_is_only_text_then_never_less_than_the_text(messages, ascii_only) -> None:
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ascii_only).encode()
    request = parse_json(body, CHAT, limits=Limits(), force_stream_usage=False)
    assert request.input_text_bytes() <= text_bound(request) <= len(body)


@pytest.mark.parametrize(
    "document",
    [
        message([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]),
        {"prompt": PICTURE},
    ],
    ids=["parts of media", "a large body"],
)
def test_text_bound_when_the_body_tells_too_little_then_the_text_is_counted(document) -> None:
    request = parse_json(json.dumps(document).encode(), CHAT, limits=Limits(), force_stream_usage=False)
    assert text_bound(request) == request.input_text_bytes() == MEDIA_PART_BYTES


def test_text_bound_when_a_body_was_not_read_then_what_is_known_counts() -> None:
    assert text_bound(replace(parse_empty(), body=b"not JSON")) == 0
    assert text_bound(replace(parse_empty(), input_text_bytes=lambda: 7)) == 7
