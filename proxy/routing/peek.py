"""Reads the first event of a stream before its head is sent: a stream that fails at once can still be replaced.

What was read is returned again, byte for byte. A stream passes unexamined if its first event takes too long, if it is
compressed, or if it begins with too much data that is no event. The figures of an error are read before another answer
replaces it: some gateways bill what a model had used when it failed.

Source: OpenAI API reference, "Streaming": errors inside a stream; WHATWG HTML section 9.2.
"""

import asyncio
from typing import Any, Final

from proxy.errors import UpstreamFailed
from proxy.exchange import Meter, Sink, UpstreamReply
from proxy.openai.decoding import coding_of
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_object
from proxy.openai.sse import Event, EventReader

_MOST_BYTES: Final = 65_536
_MOST_OF_ERROR_BYTES: Final = 16_384
_FAILED_TYPES: Final = frozenset({"error", "response.failed"})


class PeekedReply:
    """Implements `exchange.UpstreamReply`: the pieces read ahead, then the reply's own."""

    def __init__(self, reply: UpstreamReply) -> None:
        self._reply = reply
        self._ahead: list[bytes] = []
        self._pending: asyncio.Task[bytes] | None = None
        self._ended = False
        self.told: Meter | None = None
        """What an error says of usage; `None` if it was not read, or says nothing."""
        self.status = reply.status
        self.reason = reply.reason
        self.headers = reply.headers
        self.fields = reply.fields

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what was read ahead, then what arrives."""
        if self._ahead:
            ahead, self._ahead = b"".join(self._ahead), []
            return ahead
        if (pending := self._pending) is not None:
            await asyncio.wait({pending})  # a cancelled reader must not lose what arrives meanwhile
            self._pending = None
            return pending.result()
        return b"" if self._ended else await self._reply.read(sink)

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._pending is None and self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        if self._pending is not None:
            self._pending.cancel()
        self._reply.close()

    async def begins_well(self, wait_s: float) -> bool:
        """Wait for the first event; False if it is an error, or if the stream ended without one.

        Raises:
            UpstreamFailed: the provider's body was cut before the first event.
        """
        reader, size = EventReader(_MOST_BYTES), 0
        deadline = asyncio.get_running_loop().time() + wait_s
        while size <= _MOST_BYTES:
            piece = await self._read_until(deadline)
            if piece is None:
                return True
            if not piece:
                self._ended = True
                event = reader.flush()
                return event is not None and self._is_good(event, size)
            self._ahead.append(piece)
            size += len(piece)
            if events := reader.feed(piece):
                return self._is_good(events[0], size)
        return True

    async def hear(self, wait_s: float) -> None:
        """Read an error to its end for what it says of usage, unless it is long, late or cut."""
        deadline, size = asyncio.get_running_loop().time() + wait_s, 0
        try:
            while size <= _MOST_OF_ERROR_BYTES:
                piece = await self._read_until(deadline)
                if piece is None:
                    return
                if not piece:
                    self._ended = True
                    self._note(Event(None, b"".join(self._ahead)), size)
                    return
                self._ahead.append(piece)
                size += len(piece)
        except UpstreamFailed:
            return  # who reads on learns of it

    def _is_good(self, event: Event, size: int) -> bool:
        if not is_error(event):
            return True
        self._note(event, size)
        return False

    def _note(self, event: Event, size: int) -> None:
        """Keep the figures of an error. `size`: bytes read so far."""
        meter = Meter(response_bytes=size)
        StreamObserver("generic", meter).count(event)
        meter.is_interim = False  # nothing follows an error
        self.told = None if meter.usage is None else meter

    async def _read_until(self, deadline: float) -> bytes | None:
        """Return the next piece, `None` if it is late; the read continues, so that nothing is lost."""
        pending = asyncio.ensure_future(self._reply.read())
        self._pending = pending
        await asyncio.wait({pending}, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        if not pending.done():
            return None
        self._pending = None
        return pending.result()


def can_be_peeked(reply: UpstreamReply) -> bool:
    """Tell whether an answer is a readable stream of events."""
    return reply.status == 200 and _plain_type(reply) == b"text/event-stream"


def can_be_heard(reply: UpstreamReply) -> bool:
    """Tell whether an answer is a readable JSON document."""
    return _plain_type(reply) == b"application/json"


def _plain_type(reply: UpstreamReply) -> bytes:
    """Return the media type of a body, empty if it is compressed."""
    fields = reply.fields
    is_plain = not coding_of(reply)
    return fields.get(b"content-type", b"").partition(b";")[0].strip().lower() if is_plain else b""


def is_error(event: Event) -> bool:
    """Tell whether an event reports that the call failed."""
    document: dict[str, Any] = load_object(event.data) or {}
    kind = document.get("type")
    return event.name == b"error" or bool(document.get("error")) or (type(kind) is str and kind in _FAILED_TYPES)
