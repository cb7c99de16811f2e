"""Events: one frame, one event."""

import orjson
import pytest

from proxy.demo.events import DONE, GARBAGE, event


def test_event_when_named_then_both_lines_and_a_blank_one() -> None:
    assert event({"a": "é\n"}, name="thing").data == b'event: thing\ndata: {"a":"\xc3\xa9\\n"}\n\n'
    assert event({"a": 1}, tokens=3).tokens == 3
    assert DONE.data == b"data: [DONE]\n\n"


def test_garbage_when_parsed_then_no_json() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(GARBAGE.data.removeprefix(b"data: ").strip())
