"""What the reader of plain heads takes, aiohttp's parser takes too and understands alike; the rest it leaves alone."""

import asyncio

import pytest
from aiohttp import http_exceptions
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.ingress.lean_head import is_begun, read_head

USUAL = (
    b"POST /v1/chat/completions?a=%20 HTTP/1.1\r\nHost: a:1\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nUser-Agent: OpenAI/Python 2.54.0\r\nAuthorization: Bearer sk-x\r\n"
    b"X-empty:\r\nx-a: \xe4 \t \r\nContent-Length: 12\r\nX-A: 2\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _kind_of_server():
    """One server is enough here."""


def read(data: bytes, line_bytes: int = 8190, lines: int = 64):
    return read_head(data, line_bytes=line_bytes, lines=lines)


def test_head_when_plain_then_its_facts_are_as_on_the_wire():
    head, length, size = read(USUAL + b"behind")
    assert (head.method, head.target, head.keep_alive) == ("POST", "/v1/chat/completions?a=%20", True)
    assert (length, size) == (12, len(USUAL))
    assert head.headers == (
        (b"Host", b"a:1"),
        (b"Accept-Encoding", b"gzip, deflate"),
        (b"Connection", b"keep-alive"),
        (b"User-Agent", b"OpenAI/Python 2.54.0"),
        (b"Authorization", b"Bearer sk-x"),
        (b"X-empty", b""),
        (b"x-a", b"\xe4"),
        (b"X-A", b"2"),
    )


def test_head_when_it_comes_again_then_only_the_length_may_differ():
    head, _, size = read(USUAL)
    assert head.follows(USUAL + b"behind") == (12, size)
    assert head.follows(USUAL.replace(b": 12", b": 12345")) == (12345, size + 3)
    for other in (b": 1x", b": ", b": -1", b": 12 ", b": 1234567890123456"):
        assert head.follows(USUAL.replace(b": 12", other)) is None
    for place in range(size):
        changed = bytes([USUAL[place] ^ 1])
        is_digit = USUAL[place : place + 1].isdigit() and USUAL[:place].rstrip(b"1").endswith(b"Length: ")
        assert is_digit or head.follows(USUAL[:place] + changed + USUAL[place + 1 :]) is None
    for end in range(size):
        assert head.follows(USUAL[:end]) is None


def test_head_when_it_has_no_length_then_it_is_known_again_as_a_whole():
    wire = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    head, length, size = read(wire)
    assert (length, size, head.keep_alive) == (None, len(wire), False)
    assert head.follows(wire + b"more") == (None, size)
    assert head.follows(wire.replace(b"models", b"modelS")) is None


ELSEWHERE = {
    "chunks": b"Transfer-Encoding: chunked",
    "upgrade": b"Upgrade: websocket",
    "option of the connection": b"Connection: upgrade",
    "expectation": b"Expect: 100-continue",
    "second host": b"Host: b",
    "second length": b"content-length: 12",
    "folded": b" folded",
    "no colon": b"Authorization Bearer x",
    "space before the colon": b"X-A : 1",
    "NUL": b"X-A: \x00",
    "CR": b"X-A: a\rb",
    "DEL": b"X-A: \x7f",
}


@pytest.mark.parametrize("line", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_head_when_a_line_is_not_plain_then_it_is_left_alone(line):
    assert read(USUAL.replace(b"X-empty:", line)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1.1", b"1.0"),
        (b"POST", b"CONNECT"),
        (b"POST", b"post"),
        (b" /v1", b" http://a/v1"),
        (b"%20", b"#"),
        (b"Host: a:1\r\n", b""),
        (b"Host: a:1\r\n", b"Host: a b\r\n"),
        (b": 12", b": +12"),
        (b": 12", b": 1_2"),
        (b"\r\nX-A", b"\nX-A"),
    ],
)
def test_head_when_it_differs_from_plain_then_it_is_left_alone(old, new):
    assert read(USUAL.replace(old, new)) is None


def test_head_when_beyond_a_limit_then_it_is_left_alone():
    size, count = len(USUAL), USUAL.count(b"\r\n") - 2
    assert read(USUAL, line_bytes=size)
    assert read(USUAL, line_bytes=size - 1) is None
    assert read(USUAL, lines=count + 1)
    assert read(USUAL, lines=count) is None


def test_head_when_cut_anywhere_then_it_is_not_whole_and_not_read():
    for end in range(1, len(USUAL)):
        assert read(USUAL[:end]) is None
        assert is_begun(USUAL[:end])
    assert not is_begun(USUAL)


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02", b"get / HTTP/1.1\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"\r\n"])
def test_head_when_it_can_never_become_plain_then_nothing_is_waited_for(data):
    assert not is_begun(data)


def aiohttp_reads(data: bytes):
    """What aiohttp's parser makes of the same bytes; `None`: it refuses them or waits for more."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(None, loop, 2**16, max_line_size=8190, max_field_size=8190, max_headers=64)
        messages, _, _ = parser.feed_data(data)
    except http_exceptions.HttpProcessingError:
        return None
    finally:
        loop.close()
    return messages[0][0] if messages else None


PIECES = [
    b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"\x00", b"\x7f", b"\xff", b",", b"Content-Length: 1\r\n", b"chunked",
    b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"0", b"HTTP/1.1", b"Connection: close\r\n", b"%", b"/",
]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, len(USUAL)), st.integers(0, 3), st.sampled_from(PIECES)), max_size=4))
@example([(USUAL.index(b"12"), 0, b" ")])
def test_head_when_changed_anyhow_then_nothing_is_read_that_aiohttp_would_refuse_or_read_otherwise(changes):
    wire = USUAL
    for place, dropped, added in changes:
        wire = wire[:place] + added + wire[place + dropped :]
    found = read(wire)
    if found is None:
        return
    head, length, size = found
    other = aiohttp_reads(wire[:size])
    assert other is not None
    assert (other.method, other.path) == (head.method, head.target)
    assert tuple(field for field in other.raw_headers if field[0].lower() != b"content-length") == head.headers
    lengths = [value for name, value in other.raw_headers if name.lower() == b"content-length"]
    assert [int(value) for value in lengths] == ([] if length is None else [length])
    assert (other.should_close, other.upgrade, other.chunked) == (not head.keep_alive, False, False)
