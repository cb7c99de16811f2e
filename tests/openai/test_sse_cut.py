"""Cutting event streams between their events."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.openai.sse import Event, EventReader
from proxy.openai.sse_cut import MEANINGLESS, EventCutter

PIECES = st.lists(
    st.sampled_from(
        [
            *(b"data: x", b"data", b"event: e", b"id: 1", b": c", b"x", b"\xc3\xa9", b"\xef\xbb\xbf"),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data: x\n\n", b"\n" * 17, b":\r\n" * 17),
        ]
    ),
    max_size=14,
).map(b"".join)
MANY = b"\n\r\n: ping\r:\n\n" * 10
"""Blank lines and comments."""
PLACES = st.lists(st.integers(0, 90), max_size=6)


def pieces_of(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(bounds)]


def cut(pieces: list[bytes], limit: int = 1 << 20) -> list[bytes]:
    cutter = EventCutter(limit)
    cuts = [one for piece in pieces for one in cutter.feed(piece)]
    rest = cutter.flush()
    return [*cuts, rest] if rest else cuts


def joined(cuts: list[bytes]) -> list[bytes]:
    """Return the cuts with a LF that came late put back behind its CR, and what means nothing in one piece."""
    out: list[bytes] = []
    for one in cuts:
        is_late = one == b"\n" and out and out[-1].endswith(b"\r")
        if is_late or (out and MEANINGLESS.fullmatch(one) and MEANINGLESS.fullmatch(out[-1])):
            out[-1] += one
        else:
            out.append(one)
    return out


@settings(deadline=None)
@given(PIECES, PLACES)
@example(b"data: x\r\n\r\n\r\ndata: x\r\n\r\n", [9, 10, 11, 13])
@example(b"\xef\xbb\xbf: c\ndata: x\n\n", [1, 4])
def test_feed_when_the_stream_is_cut_anywhere_then_the_same_cuts_of_the_same_bytes(
    stream: bytes, places: list[int]
) -> None:
    whole = cut([stream])
    assert b"".join(whole) == stream
    assert joined(cut(pieces_of(stream, places))) == joined(whole)
    assert joined(cut([stream[at : at + 1] for at in range(len(stream))])) == joined(whole)


@settings(deadline=None)
@given(PIECES, PLACES)
def test_feed_when_read_cut_by_cut_then_each_holds_one_event_at_most_and_whole(
    stream: bytes, places: list[int]
) -> None:
    cutter, reader, events = EventCutter(1 << 20), EventReader(1 << 20), []
    for piece in pieces_of(stream, places):
        for one in cutter.feed(piece):
            found = reader.feed(one)
            assert len(found) <= 1
            events += found
    everything = EventReader(1 << 20)
    assert events == everything.feed(stream)
    reader.feed(cutter.flush())
    assert reader.flush() == everything.flush()


@pytest.mark.parametrize(
    ("piece", "cuts"),
    [
        (b"data: a\n\n", [b"data: a\n\n"]),
        (b"data: a\n\nevent: e\ndata: b\n\n", [b"data: a\n\n", b"event: e\ndata: b\n\n"]),
        (b": ping\n", [b": ping\n"]),
        (b": ping\n\n", [b": ping\n", b"\n"]),
        (b"\n\n\n", [b"\n", b"\n", b"\n"]),
        (b"\n" * 40, [b"\n", b"\n" * 39]),
        (b"data: a\n\n" + MANY + b"data: b\n\n", [b"data: a\n\n", MANY, b"data: b\n\n"]),
        (b"data: a\n\n" + MANY + b": 12 letters..\n:\n", [b"data: a\n\n", MANY, b": 12 letters..\n", b":\n"]),
        (b"data: a\n" + b": inside\n" * 40 + b"\n:\n", [b"data: a\n" + b": inside\n" * 40 + b"\n", b":\n"]),
        (b"data: a\n\n\n", [b"data: a\n\n", b"\n"]),
        (b"data: a\n\n\ndata: b\n\n", [b"data: a\n\n", b"\n", b"data: b\n\n"]),
        (b"data: a\n: inside\n", []),
        (b"data: a\n: inside\n\n", [b"data: a\n: inside\n\n"]),
        (b"data: a\r\r", [b"data: a\r\r"]),
        (b"", []),
        (b"data: a\n\ndata: b", [b"data: a\n\n"]),
    ],
    ids=repr,
)
def test_feed_when_a_piece_comes_then_what_is_whole_leaves_at_once(piece: bytes, cuts: list[bytes]) -> None:
    cutter = EventCutter(1 << 20)
    assert cutter.feed(piece) == cuts
    assert cutter.flush() == piece[len(b"".join(cuts)) :]
    assert not cutter.mid_event


@pytest.mark.parametrize("size", [1, 3, 50], ids=lambda size: f"by {size}")
def test_feed_when_an_event_is_too_large_then_it_goes_on_in_parts_up_to_its_end(size: int) -> None:
    large = b"event: e\ndata: " + b"x" * 40 + b"\n: inside\ndata: y\n\n"
    stream = large + b": ping\ndata: z\n\n"
    cutter, mid_event, cuts = EventCutter(16), False, []
    for at in range(0, len(stream), size):
        cuts += cutter.feed(stream[at : at + size])
        mid_event = mid_event or cutter.mid_event
    assert b"".join(cuts) == stream
    assert cuts[-2:] == [b": ping\n", b"data: z\n\n"]
    assert mid_event and not cutter.mid_event
    reader = EventReader(15)
    assert [event for one in cuts for event in reader.feed(one)] == [Event(b"e", b""), Event(None, b"z")]


def test_feed_when_a_line_break_of_a_large_event_comes_late_then_no_end_is_made_up() -> None:
    cutter = EventCutter(8)
    assert cutter.feed(b"data: 123456\r") == [b"data: 123456\r"]
    assert cutter.feed(b"\n") == []
    assert cutter.feed(b"data: x\r\n\r\n") == [b"\ndata: x\r\n\r\n"]
