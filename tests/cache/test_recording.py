"""The copy of an answer that passes."""

import gzip
import zlib

import pytest

from proxy.cache.recording import RecordedReply
from proxy.errors import Overloaded
from proxy.exchange import first_values


class Memory:
    """Room for so many bytes."""

    def __init__(self, left=1000):
        self.left = left

    def take(self, size):
        if size > self.left:
            raise Overloaded("no room")
        self.left -= size

    def give(self, size):
        self.left += size


class Reply:
    status, reason, complete = 200, "OK", True

    def __init__(self, *pieces, encoding=b""):
        self.headers = ((b"Content-Encoding", encoding),) if encoding else ()
        self.fields = first_values(self.headers)
        self._pieces = list(pieces)
        self.closed = 0

    async def read(self, sink=None):
        return self._pieces.pop(0) if self._pieces else b""

    def close(self):
        self.closed += 1


async def test_body_when_read_then_everything_that_passed():
    reply = Reply(b"ab", b"c")
    recorded = RecordedReply(reply, 3, Memory())
    assert [await recorded.read() for _ in range(3)] == [b"ab", b"c", b""]
    assert (recorded.body(), recorded.complete, recorded.status, recorded.reason) == (b"abc", True, 200, "OK")
    recorded.close()
    assert reply.closed == 1


async def test_body_when_too_large_then_none_and_all_of_it_passes():
    recorded = RecordedReply(Reply(b"ab", b"cd", b"e"), 3, Memory())
    assert [await recorded.read() for _ in range(3)] == [b"ab", b"cd", b"e"]
    assert recorded.body() is None


@pytest.mark.parametrize(("left", "limit", "crowded"), [(5, 3, False), (3, 10, True)], ids=["large", "crowded"])
async def test_copy_when_it_is_dropped_or_done_with_then_its_memory_is_free_again(left, limit, crowded):
    memory = Memory(left)
    recorded = RecordedReply(Reply(b"ab", b"cd", b"e"), limit, memory)
    await recorded.read()
    assert memory.left == left - 2
    await recorded.read()
    assert (memory.left, recorded.body(), recorded.is_crowded) == (left, None, crowded)
    kept = RecordedReply(Reply(b"ab"), limit, memory)
    await kept.read()
    kept.close()
    kept.close()
    assert memory.left == left


ENCODED = {
    "gzip": (b"gzip", gzip.compress(b"hello"), b"hello"),
    "deflate": (b" Deflate", zlib.compress(b"hello"), b"hello"),
    "identity": (b"identity", b"hello", b"hello"),
    "none": (b"none", b"hello", b"hello"),
    "unknown": (b"br", b"hello", None),
    "cut": (b"gzip", gzip.compress(b"hello")[:-4], None),
    "not what it says": (b"gzip", b"hello", None),
    "too large inside": (b"gzip", gzip.compress(b"x" * 1000), None),
}


@pytest.mark.parametrize(("encoding", "body", "plain"), ENCODED.values(), ids=ENCODED.keys())
async def test_body_when_encoded_then_what_it_says_or_nothing(encoding, body, plain):
    recorded = RecordedReply(Reply(body, encoding=encoding), 100, Memory())
    await recorded.read()
    assert recorded.body() == plain
