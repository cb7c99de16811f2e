"""Reading along with event streams."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.openai.sse import Event, EventReader, single_event, split_field

STREAM = (
    b"\xef\xbb\xbf: hello\n\n"
    b"data: one\n\n"
    b"event: named\r\nid: 7\r\nretry: 10\r\ndata: two\r\ndata:three\r\n\r\n"
    b"data\rdata:  four\r\r"
    b"\n\nid: 8\n\n"
    b"unknown: x\ndata:\n\n\n"
    b": ping\n\ndata: \xc3\xa9\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [
    Event(None, b"one"),
    Event(b"named", b"two\nthree"),
    Event(None, b"\n four"),
    Event(None, b""),
    Event(None, b"\xc3\xa9"),
    Event(None, b"[DONE]"),
]
PIECES = st.lists(
    st.sampled_from(
        [
            b"data: {x}",
            b"data:",
            b"data",
            b"event: e",
            b"id: 1",
            b": c",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"x",
            b"\xef\xbb\xbf",
        ]
    ),
    max_size=14,
).map(b"".join)


def read(stream: bytes, cuts: list[int], limit: int = 1 << 20) -> tuple[list[Event], Event | None]:
    reader = EventReader(limit)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = []
    for start, stop in itertools.pairwise(bounds):
        events += reader.feed(stream[start:stop])
    return events, reader.flush()


def test_feed_when_the_stream_is_cut_anywhere_then_the_same_events() -> None:
    for cut in range(len(STREAM) + 1):
        assert read(STREAM, [cut]) == (EVENTS, None)
    assert read(STREAM, list(range(len(STREAM)))) == (EVENTS, None)


@given(PIECES, st.lists(st.integers(0, 60), max_size=5))
@example(b"data: x\r\n\r\n", [10])
@example(b"\xef\xbb", [1])
def test_feed_when_any_stream_is_cut_anywhere_then_the_same_events(stream: bytes, cuts: list[int]) -> None:
    assert read(stream, cuts) == read(stream, [])


@given(PIECES)
def test_feed_when_line_ends_differ_then_the_same_events(stream: bytes) -> None:
    plain = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    expected = read(plain, [])
    assert read(plain.replace(b"\n", b"\r\n"), []) == expected
    assert read(plain.replace(b"\n", b"\r"), []) == expected


@pytest.mark.parametrize(
    ("rest", "event"),
    [
        (b"", None),
        (b"\n", None),
        (b": comment", None),
        (b"event: e\n", None),
        (b"data: [DONE]", Event(None, b"[DONE]")),
        (b"event: e\ndata: {\n", Event(b"e", b"{")),
    ],
)
def test_flush_when_the_stream_ends_then_the_unfinished_event_is_told(rest: bytes, event: Event | None) -> None:
    assert read(b"data: a\n\n" + rest, []) == ([Event(None, b"a")], event)


def test_mid_event_when_the_stream_stops_inside_an_event_then_true() -> None:
    reader = EventReader(100)
    for chunk, inside in (
        (b"data: a\n\n", False),
        (b"\n", False),
        (b"data: b\n", True),
        (b"\n", False),
        (b"x" * 200, True),
    ):
        reader.feed(chunk)
        assert reader.mid_event is inside


@pytest.mark.parametrize("step", [7, 100, 4096, 1 << 20])
def test_feed_when_an_event_is_too_large_then_only_its_name_is_told(step: int) -> None:
    large = b"event: response.completed\ndata: " + b"x" * 20_000 + b"\n\n"
    stream = b"data: a\n\n" + large + b"data: b\n\n" + b"data: " + b"y" * 20_000 + b"\n\ndata: c\n\n"
    events, rest = read(stream, list(range(0, len(stream), step)), limit=10_000)
    assert events == [
        Event(None, b"a"),
        Event(b"response.completed", b""),
        Event(None, b"b"),
        Event(None, b""),
        Event(None, b"c"),
    ]
    assert rest is None


def test_flush_when_a_too_large_event_is_unfinished_then_only_its_name_is_told() -> None:
    stream = b"event: e\ndata: " + b"x" * 500
    assert read(stream, list(range(0, 500, 50)), limit=100) == ([], Event(b"e", b""))


def test_feed_when_an_endless_event_comes_then_memory_stays_flat() -> None:
    reader = EventReader(1_000)
    for _ in range(200):
        assert reader.feed(b"x" * 1_000) == []
        assert len(reader._pending) <= 2_001


@pytest.mark.parametrize(
    ("chunk", "event"),
    [
        (b"data: {}\n\n", Event(None, b"{}")),
        (b"data: \n\n", Event(None, b"")),
        (b"data: {}\n", None),
        (b"data: {}\nx", None),
        (b"data: {}\n\ndata: {}\n\n", None),
        (b"data: {\ndata: }\n\n", None),
        (b"data:{}\n\n", None),
        (b"event: e\n\n", None),
        (b"\n\n", None),
    ],
)
def test_single_event_when_a_chunk_is_exactly_one_then_it_is_told(chunk: bytes, event: Event | None) -> None:
    assert single_event(chunk) == event


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"data: a: b", (b"data", b"a: b")),
        (b"data:a", (b"data", b"a")),
        (b"data", (b"data", b"")),
        (b": c", (b"", b"c")),
        (b"data:  two", (b"data", b" two")),
    ],
)
def test_split_field_when_a_line_is_given_then_name_and_value(line: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split_field(line) == parts
