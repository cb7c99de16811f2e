"""A provider's answer that is copied as it passes to the relay, so that it can be stored afterwards.

The copy has the provider's bytes, before anything is removed or masked. If it exceeds a limit, or there is no memory
for it, it is dropped. The relay is not aware of it.
"""

from typing import Final, Protocol

from proxy.errors import Overloaded, UpstreamFailed
from proxy.exchange import Headers, Sink, UpstreamReply
from proxy.openai.decoding import Decoder, coding_of, supported

_PIECE_BYTES: Final = 65_536


class Room(Protocol):
    """The memory budget of all running requests."""

    def take(self, size: int) -> None:
        """Reserve memory. Raises Overloaded if there is not enough."""

    def give(self, size: int) -> None:
        """Release memory."""


class RecordedReply:
    """Implements `exchange.UpstreamReply` around a provider's. `limit`: of the copy, encoded and decoded."""

    def __init__(self, reply: UpstreamReply, limit: int, room: Room) -> None:
        self.is_crowded = False
        """There was no memory for the copy."""
        self._reply = reply
        self._limit = limit
        self._room = room
        self._held = 0
        self._copy: bytearray | None = bytearray()
        self.status: int = reply.status
        self.reason: str = reply.reason
        self.headers: Headers = reply.headers
        self.fields = reply.fields

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived."""
        piece = await self._reply.read()
        self._take_down(piece)
        return piece

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply and drop the copy. Idempotent."""
        self._reply.close()
        self._forget()

    def body(self) -> bytes | None:
        """Return the body with its encoding removed; `None` if it exceeds the limit, or that is impossible."""
        encoding = coding_of(self)
        if self._copy is None or not encoding:
            return None if self._copy is None else bytes(self._copy)
        return self._decoded(encoding) if supported(encoding) else None

    def _decoded(self, encoding: bytes) -> bytes | None:
        decoder, plain = Decoder(encoding, _PIECE_BYTES), bytearray()
        try:
            for piece in decoder.feed(bytes(self._copy or b"")):
                plain += piece
                if len(plain) > self._limit:
                    return None
        except UpstreamFailed:
            return None
        return bytes(plain) if decoder.complete else None

    def _take_down(self, piece: bytes) -> None:
        if self._copy is None:
            return
        if len(self._copy) + len(piece) > self._limit:
            self._forget()
            return
        try:
            self._room.take(len(piece))
        except Overloaded:
            self.is_crowded = True
            self._forget()
            return
        self._held += len(piece)
        self._copy += piece

    def _forget(self) -> None:
        self._copy = None
        self._room.give(self._held)
        self._held = 0
