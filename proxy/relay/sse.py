"""Relay of event streams: bytes are sent unchanged as they arrive, while the meter reads them.

One question decides how: must the answer be edited?
- no: every piece is written at once, even half an event, while `EventReader` reads the events that it completes;
- yes (we requested usage that the client did not want): `EventEditor` holds each line until it is complete, removes the
  usage and passes everything else.
A compressed stream passes unchanged too, while a decoded copy is read; it is sent decoded only if it must be edited. A
stream whose encoding cannot be removed passes unread.

The record is made when the stream's terminator is seen, before the bytes that complete it are sent. After it, the
provider is read to the end of its message so that the connection can be reused, but for `after_end_s` at most. A
Content-Length from the provider is dropped: the record precedes the end in any case, and an error event may have to
follow what was sent.

A stream that we may have to end early or rewrite has its own relay (`bounded`). Here a scanner only observes.

Source: WHATWG HTML section 9.2 (server-sent events); OpenAI API reference, "Streaming".
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from proxy.errors import UpstreamFailed, UpstreamTimeout
from proxy.event_loop.off_loop import LARGE_BYTES, Turns, decoded_off_loop
from proxy.exchange import Downstream, Headers, UpstreamReply
from proxy.openai.decoding import Decoder, supported
from proxy.openai.deltas import StreamObserver, has_terminator
from proxy.openai.sse import EventReader
from proxy.openai.sse_edit import EventEditor
from proxy.relay.answer import Answer
from proxy.relay.observed import StreamWatcher

DECODED_PIECE_BYTES = 262_144
_SMALL_BYTES = 65_536
"""What is only metered, and not scanned, is read in a thread from this size on."""


async def relay_events(answer: Answer, downstream: Downstream, *, event_bytes: int, after_end_s: float) -> None:
    """Send a stream of events.

    Raises:
        UpstreamFailed: the provider's stream was cut, or has an event too large to be edited.
        ClientDisconnected: the client disconnected or stopped reading.
    """
    meter = answer.attempt.meter
    observer = (
        StreamObserver(answer.dialect, meter) if answer.scanner is None else StreamWatcher(answer, answer.scanner)
    )
    decoder = Decoder(answer.content_encoding, DECODED_PIECE_BYTES) if supported(answer.content_encoding) else None
    readable = decoder is not None or not answer.content_encoding
    reply, rest = answer.reply, Rest(answer.reply, after_end_s)
    headers = answer.headers
    tap: _Tap
    if answer.strip_usage and readable:
        tap = _Editing(answer, observer, event_bytes, decoder)
        headers = headers if decoder is None else without_encoding(headers)
    elif decoder is not None:
        tap = _Looking(answer, observer, event_bytes, decoder)
    else:
        tap = _Passing(answer, observer, event_bytes)
    most = _SMALL_BYTES if answer.scanner is None else LARGE_BYTES
    turns = Turns()
    await downstream.start(answer.status, answer.reply.reason, headers, None)
    while piece := await (rest.read() if meter.terminated else reply.read()):
        answer.note_first_byte()
        meter.response_bytes += len(piece)
        turns.begin()
        is_large = len(piece) > most or tap.held_bytes > most
        for ready in await decoded_off_loop(partial(_all_of, tap, piece)) if is_large else tap.feed(piece):
            answer.keep(ready)
            if meter.terminated:
                answer.seal()
            await downstream.write(ready)
        if turns.is_over:
            await turns.give()
        turns.end()
    held = await decoded_off_loop(tap.end) if tap.held_bytes > most else tap.end()
    observer.end()
    has_no_end = not readable or not has_terminator(answer.dialect)
    meter.terminated = meter.terminated or observer.all_finished or has_no_end
    answer.keep(held)
    answer.seal()
    await downstream.write(held)
    await downstream.finish()


def _all_of(tap: "_Tap", piece: bytes) -> list[bytes]:
    return list(tap.feed(piece))


class _Tap(Protocol):
    """Transforms the provider's pieces into what the client gets."""

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Return what may be sent now. Must be consumed before the next call."""

    def end(self) -> bytes:
        """Return what was still held."""


class _Passing:
    """Sends everything at once and unchanged."""

    def __init__(self, answer: Answer, observer: StreamObserver, event_bytes: int) -> None:
        self._answer = answer
        self._observer = observer
        self._reader = EventReader(event_bytes)

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""
        return self._reader.held_bytes

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Read the events that `piece` completes; return `piece`."""
        for event in self._reader.feed(piece):
            self._observer.count(event)
        self._answer.mid_event = self._reader.mid_event
        return (piece,)

    def end(self) -> bytes:
        """Read the unfinished event at the end of the stream."""
        if (event := self._reader.flush()) is not None:
            self._observer.count(event)
        return b""


class _Looking:
    """Sends everything at once, still encoded; a decoded copy is read."""

    def __init__(self, answer: Answer, observer: StreamObserver, event_bytes: int, decoder: Decoder) -> None:
        self._answer = answer
        self._plain = _Passing(answer, observer, event_bytes)
        self._decoder = decoder
        self._broken = False

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""
        return self._plain.held_bytes

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Read the events that `piece` completes; return `piece`."""
        try:
            for plain in () if self._broken else self._decoder.feed(piece):
                self._plain.feed(plain)
        except UpstreamFailed:
            self._broken = True  # not validly encoded: the client will notice by itself
        # Nothing of ours can be added inside an encoding.
        self._answer.mid_event = True
        return (piece,)

    def end(self) -> bytes:
        """Read the unfinished event at the end of the stream."""
        if not self._broken:
            check_complete(self._decoder, self._answer)
        return self._plain.end()


class _Editing:
    """Removes usage that only we requested; the encoding has to be removed for that."""

    def __init__(self, answer: Answer, observer: StreamObserver, event_bytes: int, decoder: Decoder | None) -> None:
        self._answer = answer
        self._editor = EventEditor(observer.observe_and_strip, event_bytes)
        self._decoder = decoder

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""
        return self._editor.held_bytes

    def feed(self, piece: bytes) -> Iterable[bytes]:
        """Return what may be sent now."""
        for plain in (piece,) if self._decoder is None else self._decoder.feed(piece):
            ready = self._editor.feed(plain)
            self._answer.mid_event = self._editor.mid_event
            yield ready

    def end(self) -> bytes:
        """Return what was still held."""
        if self._decoder is not None:
            check_complete(self._decoder, self._answer)
        return self._editor.flush()[0]


class Rest:
    """What the provider sends after the terminator, read for `after_end_s` in total at most."""

    def __init__(self, reply: UpstreamReply, after_end_s: float) -> None:
        self._reply = reply
        self._after_end_s = after_end_s
        self._give_up_at: float | None = None

    async def read(self) -> bytes:
        """Return the next piece, `b""` at the end."""
        if self._reply.complete:
            return await self._reply.read()
        if self._give_up_at is None:
            self._give_up_at = asyncio.get_running_loop().time() + self._after_end_s
        try:
            async with asyncio.timeout_at(self._give_up_at):
                return await self._reply.read()
        except (TimeoutError, UpstreamTimeout):
            return b""


def check_complete(decoder: Decoder, answer: Answer) -> None:
    """Raise UpstreamFailed if a compressed stream ended early, and without the terminator of its events."""
    meter = answer.attempt.meter
    if meter.response_bytes and not decoder.complete and not meter.terminated:
        raise UpstreamFailed("The provider's stream ended in the middle of its encoding.", code="upstream_body_cut")


def without_encoding(headers: Headers) -> Headers:
    """Return the headers of a stream whose encoding is removed."""
    return tuple(header for header in headers if header[0].lower() != b"content-encoding")
