"""Undoing Content-Encoding, bounded."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.openai.decoding import Decoder, coding_of, supported
from tests.relay.peers import Reply


def bare(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


ENCODERS = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"x-gzip", gzip.compress),
    "zlib": (b"deflate", zlib.compress),
    "bare": (b"deflate", bare),
    "gzip of two members": (b"gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
}


@pytest.mark.parametrize("name", ENCODERS)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=4), limit=st.integers(1, 400))
def test_feed_when_a_body_is_cut_anywhere_then_the_same_text_in_bounded_pieces(name, data, cuts, limit) -> None:
    encoding, encode = ENCODERS[name]
    body = encode(data)
    decoder = Decoder(encoding, limit)
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [piece for i in range(len(bounds) - 1) for piece in decoder.feed(body[bounds[i] : bounds[i + 1]])]
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert decoder.complete


def test_feed_when_a_bomb_is_sent_then_it_inflates_only_as_asked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    pieces = Decoder(b"gzip", 65_536).feed(bomb)
    assert [len(next(pieces)) for _ in range(3)] == [65_536] * 3


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", b'{"plain": "json"}'),
        (b"deflate", b"\x78\x9c" + b"\xff" * 9),
        (b"deflate", b"\xff\xff\xff"),
        (b"gzip", gzip.compress(b"x", mtime=0)[:-6] + b"??????"),
    ],
)
def test_feed_when_the_encoding_is_not_what_it_says_then_upstream_failed(encoding: bytes, body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        list(Decoder(encoding, 1000).feed(body))
    assert caught.value.code == "upstream_bad_encoding"


@pytest.mark.parametrize(("encoding", "encode"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_feed_when_padding_follows_the_end_then_it_is_ignored(encoding, encode) -> None:
    decoder = Decoder(encoding, 1000)
    assert b"".join(decoder.feed(encode(b"text") + b"\0\0\0")) == b"text"
    assert list(decoder.feed(b"\0")) == []
    assert decoder.complete


def test_complete_when_the_body_is_cut_then_false() -> None:
    decoder = Decoder(b"gzip", 1000)
    assert not decoder.complete
    list(decoder.feed(gzip.compress(b"text")[:-1]))
    assert not decoder.complete


@pytest.mark.parametrize(
    ("encoding", "known"), [(b"gzip", True), (b"deflate", True), (b"x-gzip", True), (b"br", False), (b"", False)]
)
def test_supported_when_an_encoding_is_named_then_only_those_of_zlib(encoding: bytes, known: bool) -> None:
    assert supported(encoding) is known


def _labelled(*values: bytes) -> Reply:
    return Reply([], tuple((b"Content-Encoding", value) for value in values))


@pytest.mark.parametrize(
    "values", [(), (b"",), (b"Identity",), (b" None ",), (b"UTF-8",), (b"utf8",), (b"identity", b"none"), (b" , none",)]
)
def test_coding_of_when_clients_undo_nothing_then_it_is_empty(values) -> None:
    assert coding_of(_labelled(*values)) == b""


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ((b"GZIP ",), b"gzip"),
        ((b"rot13",), b"rot13"),
        ((b"identity", b"gzip"), b"gzip"),
        ((b"none, Deflate",), b"deflate"),
        ((b"gzip, gzip",), b"gzip,gzip"),
        ((b"gzip", b"br"), b"gzip,br"),
    ],
)
def test_coding_of_when_there_are_some_then_all_of_them_in_lower_case(values, coding) -> None:
    assert coding_of(_labelled(*values)) == coding
