"""The parser alone: every split of the bytes gives the same result."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.lean_answer import AnswerParser

CHUNKED = (
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 All right\r\nX-A:  v \r\nx-a:\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5;e=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nDate: now\r\n\r\nhello world!"
CLOSED = b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\nhello world!"
BROKEN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
BAD_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"
SURPLUS = SIZED + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def _parser(**limits):
    return AnswerParser(**{"line_bytes": 1000, "lines": 20, **limits})


def _feed(pieces, bodiless=False):
    parser = _parser()
    parser.begin(bodiless=bodiless)
    body = b"".join([parser.feed(piece) for piece in pieces if piece])
    return (
        body,
        parser.status,
        parser.reason,
        parser.headers,
        parser.complete,
        parser.fault,
        parser.until_eof,
        parser.reusable if parser.complete else None,
    )


def _fields(data):
    parser = _parser()
    parser.begin(bodiless=False)
    parser.feed(data)
    return parser.fields


def _split(data, cuts):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("data", [CHUNKED, SIZED, CLOSED, BROKEN, BAD_HEAD, SURPLUS])
@pytest.mark.parametrize("bodiless", [False, True])
def test_answer_when_split_in_two_anywhere_or_into_bytes_gives_the_same(data, bodiless):
    whole = _feed([data], bodiless)
    assert _feed([data[at : at + 1] for at in range(len(data))], bodiless) == whole
    for at in range(len(data)):
        assert _feed([data[:at], data[at:]], bodiless) == whole


@given(st.sampled_from([CHUNKED, SIZED, CLOSED, BROKEN, BAD_HEAD]), st.lists(st.integers(0, 10_000), max_size=12))
def test_answer_when_split_in_any_way_gives_the_same(data, cuts):
    assert _feed(_split(data, cuts)) == _feed([data])


def test_answer_when_whole_says_everything():
    body, status, reason, headers, complete, fault, until_eof, reusable = _feed([CHUNKED])
    assert (body, status, reason) == (b"hello0123456789", 200, "All right")
    assert headers == [(b"X-A", b"v"), (b"x-a", b""), (b"Transfer-Encoding", b"Chunked")]
    assert (complete, fault, until_eof, reusable) == (True, None, False, True)
    assert _fields(CHUNKED) == {b"x-a": b"v", b"transfer-encoding": b"Chunked"}
    assert _feed([CLOSED])[4:7] == (False, None, True)
    assert _feed([BROKEN])[0] == b"hello"
    assert "chunk size" in _feed([BROKEN])[5]
    assert _feed([BAD_HEAD])[1] == 0
    assert _feed([SURPLUS])[7] is False


@given(st.binary(min_size=1, max_size=400))
def test_parser_when_fed_garbage_never_raises_and_never_invents_an_answer(data):
    parser = _parser()
    parser.feed(data)
    assert parser.status == 0 or data.startswith(b"HTTP/1.")
    assert parser.feed(b"x") == b""


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8))
def test_body_when_chunked_in_any_way_comes_out_whole(data, cuts):
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _split(data, cuts) if piece)
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    body, *_, complete, fault, _until_eof, reusable = _feed(_split(wire, cuts))
    assert (body, complete, fault, reusable) == (data, True, None, True)


def test_parser_when_begun_again_forgets_the_last_answer():
    parser = _parser()
    for _ in range(3):
        parser.begin(bodiless=True)
        assert parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") == b""
        assert parser.complete and parser.reusable
        parser.begin(bodiless=False)
        assert parser.feed(SIZED) == b"hello world!"
        assert parser.complete and parser.reusable


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"A: " + b"x" * 996, None),
        (b"A: " + b"x" * 1000, "header line too long"),
        (b"\r\n".join([b"A: b"] * 20), None),
        (b"\r\n".join([b"A: b"] * 21), "too many header lines"),
        (b"\r\n".join([b"A: " + b"x" * 900] * 8), None),
        (b"\r\n".join([b"A: " + b"x" * 900] * 9), "head too long"),
    ],
)
def test_head_when_at_its_limits_is_taken_and_above_refused(head, fault):
    parser = _parser()
    parser.feed(b"HTTP/1.1 204 No Content\r\n" + head + b"\r\n\r\n")
    assert parser.fault == fault
    assert (parser.status == 204) is (fault is None)


def test_reason_when_absent_or_not_ascii_is_text_with_a_character_per_byte():
    assert _feed([b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"])[2] == ""
    for reason in (b"\xe4", "ä".encode()):
        assert _feed([b"HTTP/1.1 200 " + reason + b"\r\nContent-Length: 0\r\n\r\n"])[2] == reason.decode("latin-1")


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 ", SIZED[:17] + b"Transfer-Encoding: chunked\r\n\r\n0\r\nT: "]
)
def test_line_when_it_never_ends_is_given_up(head):
    parser = _parser()
    parser.feed(head)
    fed = 0
    while parser.fault is None:
        parser.feed(b"x" * 100)
        fed += 100
        assert fed < 20_000
