"""Relay of event streams that an allowance bounds: before generated text leaves, it is asked for.

Events leave whole and in order. One that holds text waits until the allowance covers all text so far; everything else
(comments, figures of usage, the terminator) passes without a question, because it costs nothing more. Where the
allowance cannot be extended, what was covered has left already, the event in question is dropped, and the stream ends
in its own dialect (`openai.stream_end`). The provider is dropped first: it must not go on while a slow client reads.

    provider -> decode -> cut into events -> meter, edit -> covered? --yes--> client
                                                               `--no--> extend --no--> the end

What the client gets does not depend on how the stream came in pieces, and is the provider's bytes while the allowance
covers them. An encoding is undone for good, since nothing of ours could follow inside it.

Failure mode: an event of more than `event_bytes` is not read for text and passes, unless it must be edited. The record
is made before the last byte leaves, as for any stream.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from proxy.exchange import Allowance, Downstream
from proxy.openai.decoding import Decoder, supported
from proxy.openai.deltas import StreamObserver, has_terminator, has_text
from proxy.openai.sse import Event, EventReader
from proxy.openai.sse_cut import EventCutter
from proxy.openai.sse_edit import EventEditor
from proxy.openai.stream_end import end_of
from proxy.openai.stream_usage import strip_usage
from proxy.relay.answer import Answer, reason_of
from proxy.relay.sse import DECODED_PIECE_BYTES, Rest, check_complete, without_encoding


def can_be_bounded(answer: Answer) -> bool:
    """Tell whether the text of a stream can be seen: its dialect has some, and its encoding can be undone."""
    return has_text(answer.dialect) and (not answer.content_encoding or supported(answer.content_encoding))


async def relay_bounded(
    answer: Answer, allowance: Allowance, downstream: Downstream, *, event_bytes: int, after_end_s: float
) -> None:
    """Pass on a stream of events as far as `allowance` goes.

    Raises:
        UpstreamFailed: the provider broke off, sent an event too large to be edited or a wrong encoding.
        ClientDisconnected: the client left or stopped reading.
    """
    attempt, reply = answer.attempt, answer.reply
    meter, rest = attempt.meter, Rest(reply, after_end_s)
    reading = _Reading(answer, event_bytes)
    gate = _Gate(answer, allowance, downstream, reading)
    headers = without_encoding(answer.headers) if answer.content_encoding else answer.headers
    await downstream.start(answer.status, reply.reason, headers, None)
    while piece := await (rest.read() if meter.terminated else reply.read()):
        if attempt.first_byte_at is None:
            attempt.first_byte_at = time.monotonic()
        meter.response_bytes += len(piece)
        for plain in reading.decoded(piece):
            if not await gate.pass_on(reading.events(plain)):
                return
    if not await gate.pass_on(reading.rest()):
        return
    meter.terminated = meter.terminated or reading.all_finished or not has_terminator(answer.dialect)
    answer.seal()
    await downstream.finish()


class _Reading:
    """One stream on our side: decoded, cut, metered and edited, event by event. No I/O."""

    def __init__(self, answer: Answer, event_bytes: int) -> None:
        self._answer = answer
        encoding = answer.content_encoding
        self._decoder = Decoder(encoding, DECODED_PIECE_BYTES) if encoding else None
        # A CRLF counts once for the reader: what is too large to be held whole is too large to be read.
        self._cutter = EventCutter(2 * event_bytes + 1024)
        self._observer = StreamObserver(answer.dialect, answer.attempt.meter)
        self._reader = EventReader(event_bytes)
        self._editor = EventEditor(self._observe_and_strip, event_bytes) if answer.strip_usage else None
        self.latest: tuple[bytes, dict[str, Any]] | None = None
        """The event that was metered last, until somebody takes it away."""

    @property
    def all_finished(self) -> bool:
        """True when everything that began has ended."""
        return self._observer.all_finished

    @property
    def mid_event(self) -> bool:
        """True while an event has been given out in part."""
        return self._cutter.mid_event if self._editor is None else self._editor.mid_event

    def decoded(self, piece: bytes) -> Iterable[bytes]:
        """Return a piece of the body without its encoding."""
        return (piece,) if self._decoder is None else self._decoder.feed(piece)

    def events(self, plain: bytes) -> Iterator[bytes]:
        """Yield what may leave, one event at a time, each metered only when it is asked for."""
        for cut in self._cutter.feed(plain):
            yield self._read(cut)

    def rest(self) -> Iterator[bytes]:
        """Yield the event that the stream's end left unfinished."""
        if self._decoder is not None:
            check_complete(self._decoder, self._answer)
        held = self._read(self._cutter.flush())
        if self._editor is not None:
            held += self._editor.flush()[0]
        elif (event := self._reader.flush()) is not None:
            self._observe(event)
        yield held

    def _read(self, cut: bytes) -> bytes:
        if self._editor is not None:
            return self._editor.feed(cut)
        for event in self._reader.feed(cut):
            self._observe(event)
        return cut

    def _observe(self, event: Event) -> dict[str, Any] | None:
        document = self._observer.observe(event)
        if document is not None:
            self.latest = event.data, document
        return document

    def _observe_and_strip(self, event: Event) -> bytes | None:
        document = self._observe(event)
        return event.data if document is None else strip_usage(event.data, document)


class _Gate:
    """The client's side of one stream."""

    def __init__(self, answer: Answer, allowance: Allowance, downstream: Downstream, reading: _Reading) -> None:
        self._answer = answer
        self._meter = answer.attempt.meter
        self._allowance = allowance
        self._downstream = downstream
        self._reading = reading
        self._end = end_of(answer.dialect, asked_for_usage=answer.asked_for_usage)
        self._asked_at = 0
        """`Meter.text_deltas` when the allowance covered them."""

    async def pass_on(self, events: Iterator[bytes]) -> bool:
        """Write events, as many as are covered in one write; False: the stream has been ended."""
        covered: list[bytes] = []
        for event in events:
            if self._meter.text_deltas != self._asked_at and not await self._is_covered(covered):
                await self._cut()
                return False
            if (latest := self._reading.latest) is not None:
                self._reading.latest = None
                self._end.follow(*latest)
            covered.append(event)
        await self._write(b"".join(covered))
        return True

    async def _is_covered(self, before: list[bytes]) -> bool:
        """Ask for the text that has come; what was covered `before` leaves, and does not wait for the answer."""
        if not self._allowance.covers(self._meter):
            await self._write(b"".join(before))
            before.clear()
            if not await self._allowance.extend(self._meter):
                return False
        self._asked_at = self._meter.text_deltas
        return True

    async def _cut(self) -> None:
        """End the stream in front of the latest event."""
        answer = self._answer
        answer.reply.close()  # what it generates while the client reads would be paid for
        _, dropped = self._reading.latest or (b"", {})
        last = self._end.finish(dropped) if answer.at_limit == "finish" else None
        self._meter.cut = True
        answer.seal()
        await self._write(last or self._end.fail(reason_of(self._allowance)))
        await self._downstream.finish()

    async def _write(self, data: bytes) -> None:
        answer = self._answer
        if not data:
            return
        if self._meter.terminated:
            answer.seal()
        if answer.capture is not None:
            answer.capture.add(data)
        await self._downstream.write(data)
        answer.mid_event = self._reading.mid_event
