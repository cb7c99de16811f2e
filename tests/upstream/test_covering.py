"""However an answer is cut into pieces, our credentials are covered, and nothing else is changed, lost or kept back."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Message, Sink
from proxy.upstream.covering import CoveredReply, CoveredSocket

KEY, OTHER = b"sk-key-sk-key-0123", b"other-secret-456"
SECRETS = (KEY, OTHER)


class Pieces:
    """A reply of given pieces; the end may be an error, or be known with the last piece."""

    status, reason = 200, f"see {KEY.decode()}"
    headers: Headers = ()
    fields: ClassVar[Mapping[bytes, bytes]] = {}

    def __init__(
        self, pieces: Sequence[bytes], error: UpstreamFailed | None = None, ends_at_once: bool = False
    ) -> None:
        self._pieces = list(pieces)
        self._error = error
        self._ends_at_once = ends_at_once
        self.closed = False

    async def read(self, sink: Sink | None = None) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if sink is None or not sink(piece):
                return piece
        if self._error is not None:
            raise self._error
        return b""

    @property
    def complete(self) -> bool:
        return self._ends_at_once and not self._pieces

    def close(self) -> None:
        self.closed = True


async def read_all(reply: CoveredReply, taken: Sequence[bool] = ()) -> list[bytes]:
    """`taken`: what the reader's sink says, piece by piece."""
    found, says = [], list(taken)

    def sink(piece: bytes) -> bool:
        if is_taken := says.pop() if says else False:
            found.append(piece)
        return is_taken

    while piece := await reply.read(sink if taken else None):
        found.append(piece)
    return found


def run(work: object) -> list[bytes]:
    """Run a coroutine that never waits."""
    try:
        work.send(None)  # type: ignore[attr-defined]
    except StopIteration as end:
        return list(end.value)
    raise AssertionError("it waits")


WORDS = st.sampled_from([KEY, OTHER, KEY[:7], KEY[7:], OTHER[:3], b"s", b"k", b"text", b"\n"])


@given(st.lists(WORDS, max_size=8), st.data(), st.booleans(), st.lists(st.booleans(), max_size=8))
def test_body_when_cut_anywhere_then_covered_as_the_whole(
    words: list[bytes], data: st.DataObject, ends_at_once: bool, taken: list[bool]
) -> None:
    body = b"".join(words)
    cuts = sorted({0, len(body), *data.draw(st.lists(st.integers(0, len(body)), max_size=6))})
    pieces = [body[a:b] for a, b in pairwise(cuts)]
    expected = body
    for secret in SECRETS:
        expected = expected.replace(secret, b"*" * len(secret))
    pieces = [piece for piece in pieces if piece]
    assert b"".join(run(read_all(CoveredReply(Pieces(pieces, None, ends_at_once), SECRETS), taken))) == expected


def test_piece_when_offered_to_a_sink_then_it_holds_no_secret_and_no_beginning_of_one() -> None:
    pieces = [b"a\n", KEY + b"\n", b"b\n" + KEY[:7], KEY[7:] + b"\n", b"c\n"]
    offered: list[bytes] = []

    def sink(piece: bytes) -> bool:
        offered.append(piece)
        return True

    async def read() -> list[bytes]:
        reply, found = CoveredReply(Pieces(pieces), SECRETS), []
        while piece := await reply.read(sink):
            found.append(piece)
        return found

    hidden = b"*" * len(KEY) + b"\n"
    assert (run(read()), offered) == ([hidden, b"b\n", hidden], [b"a\n", b"c\n"])


async def test_piece_when_it_cannot_begin_a_secret_then_it_leaves_at_once() -> None:
    reply = CoveredReply(Pieces([b"data: s\n\n", b"ask", b" me", b""]), SECRETS)
    assert [await reply.read() for _ in range(3)] == [b"data: s\n\n", b"a", b"sk me"]


async def test_piece_when_it_completes_the_body_then_nothing_waits() -> None:
    reply = CoveredReply(Pieces([b"ask"], ends_at_once=True), SECRETS)
    assert await reply.read() == b"ask"
    assert reply.complete


async def test_body_when_it_breaks_then_what_waited_comes_before_the_error() -> None:
    reply = CoveredReply(Pieces([b"ask"], UpstreamFailed("cut")), SECRETS)
    assert [await reply.read(), await reply.read()] == [b"a", b"sk"]
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await reply.read()


async def test_reply_when_covered_then_its_reason_is_too_and_close_reaches_it() -> None:
    pieces = Pieces([])
    reply = CoveredReply(pieces, SECRETS)
    reply.close()
    assert (reply.status, reply.reason, pieces.closed) == (200, "see " + "*" * len(KEY), True)


class Talker:
    """A websocket peer that says one thing and remembers what it was told."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.told: list[Message] = []

    async def receive(self) -> Message:
        return self.message

    async def send(self, message: Message) -> None:
        self.told.append(message)


@pytest.mark.parametrize(
    ("message", "covered"),
    [
        (Message("text", f"<{KEY.decode()}>"), Message("text", f"<{'*' * len(KEY)}>")),
        (Message("binary", b"<" + OTHER), Message("binary", b"<" + b"*" * len(OTHER))),
        (Message("close", KEY.decode(), 1008), Message("close", "*" * len(KEY), 1008)),
    ],
)
async def test_message_when_it_quotes_a_secret_then_covered(message: Message, covered: Message) -> None:
    talker = Talker(message)
    assert await CoveredSocket(talker, SECRETS).receive() == covered
    await CoveredSocket(talker, SECRETS).send(message)
    assert talker.told == [message]
