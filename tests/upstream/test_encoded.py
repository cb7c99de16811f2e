"""However a compressed answer is cut into pieces: unchanged without a credential of ours, stopped before one."""

import asyncio
import gzip
import time
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Sink, UpstreamReply, first_values
from proxy.openai.decoding import Decoder
from proxy.upstream import encoded
from proxy.upstream.encoded import searched

KEY = b"sk-key-sk-key-0123"
SECRETS = (KEY, b"other-secret-456")
CODINGS = {
    b"gzip": gzip.compress,
    b"GZIP ": lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:]),
    b"deflate": zlib.compress,
    b"Deflate": lambda data: zlib.compress(data)[2:-4],
}


class Pieces:
    """A reply of given pieces."""

    status, reason = 401, "Unauthorized"

    def __init__(self, encoding: bytes, pieces: list[bytes], ends_at_once: bool = False) -> None:
        self.headers: Headers = ((b"Date", b"x"), (b"Content-Encoding", encoding))
        self.fields = first_values(self.headers)
        self._pieces = pieces
        self._ends_at_once = ends_at_once
        self.closed = False

    async def read(self, _sink: Sink | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    @property
    def complete(self) -> bool:
        return self._ends_at_once and not self._pieces

    def close(self) -> None:
        self.closed = True


async def read_all(reply: UpstreamReply, into: list[bytes]) -> bytes:
    while piece := await reply.read():
        into.append(piece)
    return b"".join(into)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % len(data) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.sampled_from([*CODINGS]), CUTS, st.booleans(), st.sampled_from([b"", b"sk-", KEY[:-1], b"sk-key-sk-key-sk-"]))
async def test_read_when_no_credential_is_in_it_then_the_bytes_are_the_same(
    encoding: bytes, cuts: list[int], at_once: bool, end: bytes
) -> None:
    data = CODINGS[encoding](b'{"error": "no other-secret"}' * 9 + end)
    assert await read_all(searched(Pieces(encoding, cut(data, cuts), at_once), SECRETS), []) == data


@given(st.sampled_from([*CODINGS]), CUTS, st.integers(0, 60), st.sampled_from(SECRETS))
async def test_read_when_a_credential_is_in_it_then_it_ends_before(
    encoding: bytes, cuts: list[int], before: int, secret: bytes
) -> None:
    text = bytes(range(97, 107)) * before + secret + b" is wrong"
    reply, passed = searched(Pieces(encoding, cut(CODINGS[encoding](text), cuts)), SECRETS), list[bytes]()
    with pytest.raises(UpstreamFailed) as caught:
        await read_all(reply, passed)
    assert caught.value.code == "upstream_credential_echoed"
    raw = encoding == b"Deflate"
    assert secret[:1] not in decoded(b"".join(passed), raw=raw)[10 * before :]


def decoded(data: bytes, *, raw: bool) -> bytes:
    found = b""
    while data:
        inflater = zlib.decompressobj(-15 if raw else 47)
        found += inflater.decompress(data)
        data = inflater.unused_data
    return found


@pytest.mark.parametrize(("encoding", "data"), [(b"gzip", b"this is no gzip"), (b"br", b"\x8b\x00\x80abc\x03")])
async def test_read_when_it_cannot_be_decoded_then_the_bytes_are_the_same(encoding: bytes, data: bytes) -> None:
    reply = searched(Pieces(encoding, cut(data, [5, 9])), SECRETS)
    assert await read_all(reply, []) == data


async def test_read_when_it_expands_beyond_measure_then_the_rest_is_not_searched() -> None:
    data = gzip.compress(b" " * 70_000_000)
    later = gzip.compress(KEY)
    assert await read_all(searched(Pieces(b"gzip", [data, later]), SECRETS), []) == data + later


async def test_read_when_one_piece_expands_beyond_measure_then_no_more_of_it_is_decoded(monkeypatch) -> None:
    monkeypatch.setattr(encoded, "_MOST_DECODED_BYTES", 1 << 20)
    data, sizes = gzip.compress(b" " * 8_000_000), list[int]()

    class Counted(Decoder):
        def feed(self, data: bytes) -> Iterator[bytes]:
            for plain in super().feed(data):
                sizes.append(len(plain))
                yield plain

    monkeypatch.setattr(encoded, "Decoder", Counted)
    assert await read_all(searched(Pieces(b"gzip", [data]), SECRETS), []) == data
    assert 1 << 20 < sum(sizes) < 2 << 20


async def test_read_when_only_a_further_line_names_the_coding_then_it_is_searched() -> None:
    reply = Pieces(b"identity", [gzip.compress(KEY)])
    reply.headers = (*reply.headers, (b"content-encoding", b"gzip"))
    with pytest.raises(UpstreamFailed):
        await read_all(searched(reply, SECRETS), [])


def test_reply_when_not_compressed_then_it_is_not_wrapped() -> None:
    reply = Pieces(b"identity", [])
    assert searched(reply, SECRETS) is reply


def test_reply_when_wrapped_then_it_is_the_others_in_all_else() -> None:
    inner = Pieces(b"gzip", [], ends_at_once=True)
    reply = searched(inner, SECRETS)
    reply.close()
    assert inner.closed
    assert (reply.status, reply.reason, reply.headers) == (401, "Unauthorized", inner.headers)


@pytest.mark.parametrize("data", [gzip.compress(b" " * 40_000_000), gzip.compress(b"") * 20_000])
async def test_read_when_one_piece_takes_long_then_others_have_their_turn(data: bytes) -> None:
    longest, ended = 0.0, False

    async def others() -> None:
        nonlocal longest
        while not ended:
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begun)

    waiting = asyncio.create_task(others())
    await asyncio.sleep(0)
    begun = time.thread_time()
    assert await read_all(searched(Pieces(b"gzip", [data]), SECRETS), []) == data
    took, ended = time.thread_time() - begun, True
    await waiting
    assert longest < took / 3


async def test_read_when_a_piece_expands_then_no_part_of_it_has_much_to_decode() -> None:
    text = b"All work and no play. " * 400_000
    reply = searched(Pieces(b"gzip", [gzip.compress(text)], ends_at_once=True), SECRETS)
    inflater, sizes = zlib.decompressobj(47), []
    while not reply.complete:
        sizes.append(len(inflater.decompress(await reply.read())))
    assert await reply.read() == b""
    assert sum(sizes) == len(text)
    assert 2 < len(sizes) and max(sizes) < 3 << 20


async def test_read_when_every_piece_may_begin_a_credential_then_what_waits_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(encoded, "_MOST_HELD_BYTES", 1000)
    deflater = zlib.compressobj()
    pieces = [deflater.compress(b"a word s") + deflater.flush(zlib.Z_SYNC_FLUSH) for _ in range(500)]
    reply = searched(Pieces(b"deflate", list(pieces)), SECRETS)
    assert 1000 < len(await reply.read()) < 1100
