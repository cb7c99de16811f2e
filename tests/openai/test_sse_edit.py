"""Editing event streams on their way."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.openai.sse import Event
from proxy.openai.sse_edit import EventEditor

PIECES = st.lists(
    st.sampled_from(
        [
            *(b"data: {x}", b"data: {", b"data: }", b"data: drop", b"data: {drop", b"data:edit", b"data:{edit"),
            *(b"data:", b"data", b"event: e", b"id: 1", b": c", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf"),
            *(b"\n" * 17, b": c\r\n" * 17),
        ]
    ),
    max_size=14,
).map(b"".join)


class Script:
    """Drops what says `drop`, changes what says `edit`, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Event] = []

    def __call__(self, event: Event) -> bytes | None:
        self.asked.append(event)
        if b"drop" in event.data:
            return None
        return event.data.replace(b"edit", b"EDITED")


def edit(stream: bytes, cuts: list[int]) -> tuple[bytes, bool, list[Event]]:
    script = Script()
    editor = EventEditor(script, 1 << 20)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    out = b"".join(editor.feed(stream[start:stop]) for start, stop in itertools.pairwise(bounds))
    rest, unfinished = editor.flush()
    return out + rest, unfinished, script.asked


@given(PIECES, st.lists(st.integers(0, 80), max_size=5))
@example(b"data: drop\r\n\r\ndata: {x}\r\n\r\n", [11, 13, 24])
@example(b"id: 1\r\ndata: {edit\r\n}\r\n\r\n", [6])
@example(b"data: {edit\rdata: }\r\r", [12])
def test_feed_when_any_stream_is_cut_anywhere_then_the_same_output(stream: bytes, cuts: list[int]) -> None:
    whole = edit(stream, [])
    assert edit(stream, cuts) == whole
    assert edit(stream, list(range(len(stream)))) == whole


@given(PIECES)
def test_feed_when_nothing_is_changed_then_the_same_bytes(stream: bytes) -> None:
    stream = stream.replace(b"drop", b"").replace(b"edit", b"")
    assert edit(stream, [])[0] == stream


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=repr)
@pytest.mark.parametrize(
    ("stream", "edited"),
    [
        (b"data: drop\n\ndata: b\n\n", b"data: b\n\n"),
        (b"data: a\n\ndata: edit\n\n", b"data: a\n\ndata: EDITED\n\n"),
        (b"event: e\nid: 1\ndata:edit\n: c\n\n", b"event: e\nid: 1\ndata:EDITED\n: c\n\n"),
        (b"event: e\nid: 1\ndata: drop\n: c\ndata: more\n\ndata: b\n\n", b"data: b\n\n"),
        (b"data: {\ndata: drop}\n\n\ndata: b\n\n", b"\ndata: b\n\n"),
        (b"data: {\n: c\ndata: edit}\n\n", b"data: {\ndata: EDITED}\n: c\n\n"),
        (b"\xef\xbb\xbfdata: edit\n\n", b"\xef\xbb\xbfdata: EDITED\n\n"),
        (b"\xef\xbb\xbf\ndata: drop\n\n", b"\xef\xbb\xbf\n"),
        (b": ping\n\nid: 1\n\ndata: drop\n\n: pong\n\n", b": ping\n\nid: 1\n\n: pong\n\n"),
    ],
)
def test_feed_when_events_are_edited_then_only_they_change(stream: bytes, edited: bytes, end: bytes) -> None:
    stream, edited = stream.replace(b"\n", end), edited.replace(b"\n", end)
    for cuts in ([], list(range(len(stream)))):
        out, unfinished, _ = edit(stream, cuts)
        assert (out, unfinished) == (edited, False)


@pytest.mark.parametrize(
    ("chunk", "edited"),
    [(b"data: a\n\n", b"data: a\n\n"), (b"data: edit\n\n", b"data: EDITED\n\n"), (b"data: drop\n\n", b"")],
)
def test_feed_when_a_chunk_is_one_event_then_it_leaves_edited(chunk: bytes, edited: bytes) -> None:
    editor = EventEditor(Script(), 100)
    assert [editor.feed(chunk), editor.feed(chunk), editor.flush()] == [edited, edited, (b"", False)]


def test_feed_when_an_event_has_a_name_then_the_edit_is_told() -> None:
    assert edit(b"event: e\ndata: {}\n\ndata: {}\n\n", [])[2] == [Event(b"e", b"{}"), Event(None, b"{}")]


def test_feed_when_a_line_has_ended_then_it_leaves_without_its_empty_line() -> None:
    editor = EventEditor(Script(), 100)
    assert editor.feed(b": ping\n") == b": ping\n"
    assert editor.feed(b'data: {"a":') == b""
    assert editor.mid_event is False
    assert editor.feed(b"1}\n") == b'data: {"a":1}\n'
    assert editor.mid_event is True
    assert editor.feed(b"\n") == b"\n"
    assert editor.mid_event is False


def test_feed_when_data_looks_unfinished_then_it_waits_for_the_empty_line() -> None:
    editor = EventEditor(Script(), 100)
    assert editor.feed(b'data: {"a":\n') == b""
    assert editor.feed(b"data: 1}\n\n") == b'data: {"a":\ndata: 1}\n\n'


def test_feed_when_a_value_appears_where_none_was_then_it_is_framed() -> None:
    editor = EventEditor(lambda event: b"new", 100)
    assert editor.feed(b"data:\n\ndata\r\n\r\n") == b"data: new\n\ndata: new\r\n\r\n"


@pytest.mark.parametrize(
    ("stream", "out", "unfinished"),
    [
        (b"data: a\n\n", b"data: a\n\n", False),
        (b"data: a\n", b"data: a\n", True),
        (b"data: a", b"data: a", True),
        (b'data: {"a', b'data: {"a', True),
        (b"data: drop", b"", True),
        (b"data: {drop\n", b"", True),
        (b"id: 1", b"id: 1", True),
        (b"", b"", False),
    ],
)
def test_flush_when_the_stream_ends_then_what_was_held_leaves(stream: bytes, out: bytes, unfinished: bool) -> None:
    assert edit(stream, [])[:2] == (out, unfinished)


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 200, b"id: 1\n" * 40, b"data: {\n" * 20], ids=["line", "fields", "data"]
)
def test_feed_when_an_event_is_too_large_to_be_held_then_it_fails(stream: bytes) -> None:
    editor = EventEditor(Script(), 100)
    with pytest.raises(UpstreamFailed) as caught:
        for start in range(0, len(stream), 8):
            editor.feed(stream[start : start + 8])
    assert caught.value.code == "upstream_event_too_large"
