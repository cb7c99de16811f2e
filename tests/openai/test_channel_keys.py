"""Which channel an event continues or ends; ids and indexes may be missing or of the wrong type."""

from typing import Any

import pytest

from proxy.openai.channel_keys import ALL, block_of, ended_by, part_of


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"output_index": 1, "item_id": "i", "content_index": 2}, ("output", 1, "content", 2)),
        ({"item_id": "i", "summary_index": 0}, ("output", "i", "summary", 0)),
        ({"response_id": "r", "output_index": 1}, ("response", "r", "output", 1)),
        ({"output_index": None, "content_index": "x"}, ("output",)),
    ],
)
def test_part_when_an_event_names_one_then_it_is_a_key(document: dict[str, Any], expected: Any) -> None:
    assert part_of(document) == expected


@pytest.mark.parametrize(
    ("kind", "document", "expected"),
    [
        ("content_block_stop", {"index": 3}, ("block", 3)),
        ("message_stop", {}, ALL),
        ("response.output_text.delta", {"output_index": 1}, None),
        ("response.output_text.done", {"output_index": 1}, ("output", 1, "response.output_text")),
        ("response.content_part.done", {"output_index": 1, "content_index": 0}, ("output", 1, "content", 0)),
        ("response.output_item.done", {"output_index": 1, "content_index": 0}, ("output", 1)),
        ("response.completed", {"response": {"id": "r", "object": "response"}}, ALL),
        ("response.done", {"response": {"id": "r", "object": "realtime.response"}}, ("response", "r")),
        ("transcript.text.done", {}, ALL),
        ("", {}, None),
    ],
)
def test_channels_when_an_event_ends_them_then_it_tells_what_their_keys_begin_with(
    kind: str, document: dict[str, Any], expected: Any
) -> None:
    assert ended_by(kind, document) == expected


def test_block_when_it_has_no_index_then_it_is_the_first() -> None:
    assert block_of({"index": "1"}) == ("block", 0)
