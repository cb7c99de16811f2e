"""Reads an answer completely before any of it is delivered, and delivers it later, byte for byte.

    collect -> complete: its content is known, and the provider's connection is free again
            -> incomplete: too large, too slow, unreadable: it is delivered unchecked, from its beginning, as it arrives

The answer is metered while it arrives, so a task cancelled in between settles what was used by then. It is metered once
more when it is delivered (`Attempt.collected`). A compressed answer is decoded for reading and delivered compressed:
clients and providers negotiate gzip themselves. The limits apply to the decoded size as well.

Failure mode: if the provider's body is cut, the answer is `broken`; on delivery it fails again at the same byte.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from proxy.errors import UpstreamFailed
from proxy.event_loop.off_loop import LARGE_BODY_BYTES, decoded_off_loop
from proxy.exchange import Allowance, Attempt, Dialect, Headers, Meter, Sink, UpstreamReply
from proxy.openai.decoding import Decoder, coding_of, supported
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_object
from proxy.openai.messages import Message, MessageReader, whole_messages
from proxy.openai.response import inspect_document
from proxy.openai.sse import Event, EventReader
from proxy.routing.checks import Weakness

Unchecked = Literal["unreadable", "too_large", "too_slow", "memory", "quota"]
_EVENTS: Final = b"text/event-stream"
_DECODED_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an answer is held, and until when. `until`: monotonic seconds."""

    answer_bytes: int
    event_bytes: int
    after_end_s: float
    until: float


class CollectedReply:
    """Implements `exchange.UpstreamReply`: what was read, then the rest, or the failure that came instead."""

    def __init__(
        self, reply: UpstreamReply, pieces: list[bytes], error: UpstreamFailed | None, *, is_whole: bool
    ) -> None:
        self.status = reply.status
        self.reason = reply.reason
        self.headers: Headers = reply.headers
        self.fields = reply.fields
        self._reply = reply
        self._pieces = pieces
        self._error = error
        self._is_whole = is_whole

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what was read ahead, then what arrives."""
        if self._pieces:
            ahead = b"".join(self._pieces)
            self._pieces.clear()
            return ahead
        if self._error is not None:
            raise self._error
        return b"" if self._is_whole else await self._reply.read(sink)

    @property
    def complete(self) -> bool:
        """True if the whole body has arrived."""
        return self._error is None and (self._is_whole or (not self._pieces and self._reply.complete))

    def close(self) -> None:
        """Release what is held, and close the reply."""
        self._pieces.clear()
        self._reply.close()


@dataclass(slots=True)
class Collected:
    """An answer that was read."""

    attempt: Attempt
    reply: CollectedReply
    said: tuple[Message, ...] = ()
    unchecked: Unchecked | None = None
    """Why it was not read completely."""
    weakness: Weakness | None = None
    """Set by the check; `broken` by the reading itself."""

    def pass_on(self) -> CollectedReply:
        """Return the answer for delivery; it is metered anew as it passes."""
        attempt = self.attempt
        attempt.collected, attempt.meter = attempt.meter, Meter()
        attempt.failure = None
        return self.reply


async def collect(
    reply: UpstreamReply,
    attempt: Attempt,
    dialect: Dialect,
    bounds: Bounds,
    *,
    hold: Callable[[int], bool],
    allowance: Allowance | None = None,
) -> Collected:
    """Read an answer. `hold`: asked for every piece, False if there is no memory for it. Closes a reply that was read.

    `allowance`: how much a stream may still generate. On cancellation the reply is closed.
    """
    reading = _Reading(reply, attempt, dialect, bounds, hold=hold, allowance=allowance)
    error: UpstreamFailed | None = None
    unchecked: Unchecked | None
    try:
        async with asyncio.timeout(max(bounds.until - time.monotonic(), 0)):
            unchecked = await reading.run()
    except TimeoutError:
        unchecked = "too_slow"
    except UpstreamFailed as failure:
        unchecked, error = None, failure
    except BaseException:
        reply.close()
        raise
    kept = CollectedReply(reply, reading.pieces, error, is_whole=unchecked is None)
    if unchecked is not None:
        return Collected(attempt, kept, unchecked=unchecked)
    reply.close()
    attempt.ended, attempt.error = time.monotonic(), error
    is_broken = error is not None or not attempt.meter.terminated or attempt.meter.stream_error is not None
    return Collected(attempt, kept, reading.said(), weakness="broken" if is_broken else None)


class _Reading:
    """One answer while it is read."""

    def __init__(
        self,
        reply: UpstreamReply,
        attempt: Attempt,
        dialect: Dialect,
        bounds: Bounds,
        *,
        hold: Callable[[int], bool],
        allowance: Allowance | None,
    ) -> None:
        fields = reply.fields
        kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        self.pieces: list[bytes] = []
        self._reply = reply
        self._attempt = attempt
        self._meter = attempt.meter
        self._dialect: Dialect = dialect
        self._bounds = bounds
        self._hold = hold
        self._allowance = allowance
        self._size = 0
        self._is_events = kind == _EVENTS
        encoding = coding_of(reply)
        self._decoder = Decoder(encoding, _DECODED_BYTES) if supported(encoding) else None
        self._decoded_size = 0
        is_plain = self._decoder is not None or not encoding
        self._is_readable = is_plain and (self._is_events or kind == b"application/json")
        self._said = MessageReader(dialect)
        self._whole_said: tuple[Message, ...] | None = None
        self._reader = EventReader(bounds.event_bytes)
        self._observer = StreamObserver(dialect, attempt.meter)

    async def run(self) -> Unchecked | None:
        """Read to the end; return why that was impossible. Raises UpstreamFailed."""
        if not self._is_readable:
            return "unreadable"
        while piece := await self._reply.read():
            if (obstacle := self._take(piece)) is not None:
                return obstacle
            if self._is_events:
                if (obstacle := self._events(piece)) is not None:
                    return obstacle
                if not await self._is_covered():
                    return "quota"
                if self._meter.terminated:
                    return await self._rest()
        if not self._is_events:
            return await self._whole()
        if (rest := self._reader.flush()) is not None:
            self._observe(rest)
        self._meter.terminated = self._meter.terminated or self._observer.all_finished
        return None

    def said(self) -> tuple[Message, ...]:
        """Return the content of its choices."""
        return self._said.said() if self._whole_said is None else self._whole_said

    def _take(self, piece: bytes) -> Unchecked | None:
        if self._attempt.first_byte_at is None:
            self._attempt.first_byte_at = time.monotonic()
        self.pieces.append(piece)
        self._size += len(piece)
        self._meter.response_bytes += len(piece)
        if self._size > self._bounds.answer_bytes:
            return "too_large"
        return None if self._hold(len(piece)) else "memory"

    def _plain(self, piece: bytes) -> Iterable[bytes]:
        return (piece,) if self._decoder is None else self._decoder.feed(piece)

    def _take_decoded(self, plain: bytes) -> Unchecked | None:
        if self._decoder is None:
            return None
        self._decoded_size += len(plain)
        if self._decoded_size > self._bounds.answer_bytes:
            return "too_large"
        return None if self._hold(len(plain)) else "memory"

    def _events(self, piece: bytes) -> Unchecked | None:
        for plain in self._plain(piece):
            if (obstacle := self._take_decoded(plain)) is not None:
                return obstacle
            for event in self._reader.feed(plain):
                self._observe(event)
        return None

    def _observe(self, event: Event) -> None:
        document = self._observer.observe(event)
        if document is not None:
            self._said.add(document)

    async def _is_covered(self) -> bool:
        allowance = self._allowance
        return allowance is None or allowance.covers(self._meter) or await allowance.extend(self._meter)

    async def _rest(self) -> Unchecked | None:
        """Read what follows the terminator, for a short time, so that the connection can be reused."""
        try:
            async with asyncio.timeout(self._bounds.after_end_s):
                while piece := await self._reply.read():
                    if (obstacle := self._take(piece)) is not None:
                        return obstacle
        except (TimeoutError, UpstreamFailed):
            pass
        return None

    async def _whole(self) -> Unchecked | None:
        decoded: list[bytes] = []
        for plain in self._plain(b"".join(self.pieces)):
            if (obstacle := self._take_decoded(plain)) is not None:
                return obstacle
            decoded.append(plain)
        read = partial(self._read_whole, b"".join(decoded))
        if self._size <= LARGE_BODY_BYTES and self._decoded_size <= LARGE_BODY_BYTES:
            read()
        else:
            await decoded_off_loop(read)
        return None

    def _read_whole(self, body: bytes) -> None:
        document = load_object(body)
        inspect_document(self._dialect, document, self._meter)
        if document is None:
            self._meter.stream_error = "invalid_json"
        self._whole_said = whole_messages(self._dialect, document)
