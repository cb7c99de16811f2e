"""Relay of event streams that we may have to end: limited by an allowance, or scanned by the policy.

Events are sent whole and in order. One with text waits until the allowance covers all text so far; everything else
(comments, usage, the terminator) passes unchecked, because it costs nothing more. If the allowance cannot be extended,
what was covered is sent, the event in question is dropped, and the stream ends in its own dialect
(`openai.stream_end`). The provider's stream is closed first: it must not go on while a slow client reads.

    provider -> decode -> cut into events -> meter -> covered? --yes--> edit, scan -> client
                                                         `--no--> extend --no--> the end

A scanner may hold events back, rewrite them, or end the stream with an error (`scanned`).

The output does not depend on how the stream was split into pieces, and consists of the provider's bytes while the
allowance covers them and nothing is found. A content encoding is removed, since nothing of ours could be added inside.

Failure mode: an event of more than `event_bytes` is not parsed and passes, unless it must be edited. The record is made
before the last byte is sent, as for any stream.
"""

import time
from collections.abc import Iterable, Iterator
from functools import partial

from proxy.errors import ProxyError, UpstreamFailed
from proxy.event_loop.off_loop import LARGE_BYTES, Turns, decoded_off_loop, off_loop
from proxy.exchange import Allowance, Downstream
from proxy.openai import json_steps
from proxy.openai.decoding import supported
from proxy.openai.deltas import has_terminator, has_text
from proxy.openai.repeated import Frame
from proxy.openai.stream_end import end_of
from proxy.relay.answer import Answer, reason_of
from proxy.relay.reading import Read, Reading
from proxy.relay.sse import Rest, without_encoding


def can_be_bounded(answer: Answer) -> bool:
    """Tell whether the text of a stream can be read: its dialect has text, and its encoding can be removed."""
    return has_text(answer.dialect) and is_readable(answer)


def is_readable(answer: Answer) -> bool:
    """Tell whether the encoding of an answer, if any, can be removed."""
    return not answer.content_encoding or supported(answer.content_encoding)


async def relay_bounded(
    answer: Answer, allowance: Allowance | None, downstream: Downstream, *, event_bytes: int, after_end_s: float
) -> None:
    """Send a stream of events as far as `allowance` and the policy permit.

    Raises:
        UpstreamFailed: the provider's stream was cut, is wrongly encoded, or has an event too large to be edited.
        ClientDisconnected: the client disconnected or stopped reading.
    """
    reading = Reading(answer, event_bytes)
    gate = _Gate(answer, allowance, downstream, reading)
    headers = without_encoding(answer.headers) if answer.content_encoding else answer.headers
    await downstream.start(answer.status, answer.reply.reason, headers, None)
    try:
        await _pump(answer, reading, gate, Rest(answer.reply, after_end_s))
    except UpstreamFailed:
        await gate.write(await decoded_off_loop(reading.decided) if reading.holds_large else reading.decided())
        raise
    finally:
        reading.note()


async def _pump(answer: Answer, reading: Reading, gate: "_Gate", rest: Rest) -> None:
    attempt, meter = answer.attempt, answer.attempt.meter
    sink = None if answer.content_encoding else gate.push
    while piece := await (rest.read() if meter.terminated else answer.reply.read(sink)):
        if attempt.first_byte_at is None:
            attempt.first_byte_at = time.monotonic()
        meter.response_bytes += len(piece)
        if reading.error is not None:
            await gate.withhold(gate.before, reading.error)
            return
        for plain in reading.decoded(piece):
            if not await gate.pass_on(gate.events(plain)):
                return
    is_large, last = reading.held_bytes > LARGE_BYTES, reading.rest()
    if not await gate.pass_on(await decoded_off_loop(lambda: list(last)) if is_large else last):
        return
    held = await decoded_off_loop(reading.held) if reading.holds_large else reading.held()
    if reading.error is not None:
        await gate.withhold(held, reading.error)
        return
    meter.terminated = meter.terminated or reading.all_finished or not has_terminator(answer.dialect)
    await gate.finish(held)


class _Gate:
    """The client's side of one stream. `allowance`: `None` for no limit."""

    def __init__(self, answer: Answer, allowance: Allowance | None, downstream: Downstream, reading: Reading) -> None:
        self._answer = answer
        self._meter = answer.attempt.meter
        self._allowance = allowance
        self._downstream = downstream
        self._put = downstream.put
        self._capture = answer.capture
        self._reading = reading
        self._end = end_of(answer.dialect, asked_for_usage=answer.asked_for_usage)
        # Only a stream that may be cut needs the state for a regular end; in `responses`, error events are numbered.
        self._follows = allowance is not None or answer.dialect == "responses"
        self._turns = Turns()
        self._asked_at = 0
        """`Meter.text_deltas` when the allowance covered them."""
        self._begun: Read | None = None
        """Metered by `push`, which could not go on with it."""
        self._done = 0
        """How much of the piece `push` has sent before that."""
        self.before = b""
        """What may still be sent where `push` found the end of the answer."""
        self._is_full = False
        """The client has not read enough, as of the latest `push`."""
        self._holds_large = False
        """A large event waits for the scanner."""

    def push(self, piece: bytes) -> bool:
        """Send a piece where it arrives (`UpstreamReply.read`); False: the reader goes on with it where this ended.

        Only events that repeat frames are taken, and not much text: what is larger could keep the event loop for long.
        """
        reading = self._reading
        if self._is_full or self._holds_large or not reading.is_between:
            return False
        if (frame := reading.repeated(piece)) is None:
            return self._push_several(piece)
        if (data := self._taken(frame, piece)) is None:
            return False
        self._meter.response_bytes += len(piece)
        if data:
            if self._capture is not None:
                self._capture.add(data)
            self._is_full = not self._put(data)
        return True

    def _push_several(self, piece: bytes) -> bool:
        """Do the same for a piece of more than one event."""
        reading = self._reading
        at, size, characters = 0, len(piece), 0
        ready: list[bytes] = []
        while (stop := piece.find(b"\n\n", at) + 2) > 1 and characters < LARGE_BYTES:
            cut = piece[at:stop]
            if (frame := reading.repeated(cut)) is None or (data := self._taken(frame, cut)) is None:
                break
            ready.append(data)
            characters += len(reading.text)
            at = stop
        if reading.error is not None:
            self.before = b"".join(ready) + self.before
        elif data := b"".join(ready):
            self._answer.keep(data)
            self._is_full = not self._put(data)
        if at < size:
            self._done = at
            return False
        self._meter.response_bytes += size
        return True

    def _taken(self, frame: Frame, cut: bytes) -> bytes | None:
        """Return what is sent of an event that was metered; `None`: the reader goes on with it."""
        reading, allowance = self._reading, self._allowance
        text = reading.text
        if allowance is not None:
            if not allowance.covers(self._meter):
                self._begun = Read(cut, None, None, False, frame, text)
                return None
            self._asked_at = self._meter.text_deltas
        if reading.passes(frame.key, text):
            data = cut if frame.is_sent_whole else frame.sent(cut)
        else:
            data = reading.admit_repeated(frame, cut, text)
            if reading.error is not None:
                self.before = data
                return None
        if frame.number:
            self._follow_number(frame.number)
        return data

    def _follow_number(self, number: bytes) -> None:
        """Note the number of an event that was not decoded: that of an event of ours comes after it."""
        self._end.follow(b"", {"sequence_number": int(number)})

    def events(self, plain: bytes) -> Iterable[Read]:
        """Return the items of what arrived that `push` has not sent; it may have metered the first one."""
        done, self._done = self._done, 0
        if self._begun is not None:
            return self._rest(self._begun, plain[done:])
        return self._reading.events(plain[done:] if done else plain)

    def _rest(self, begun: Read, plain: bytes) -> Iterator[Read]:
        self._begun = None
        yield begun
        yield from self._reading.events(plain[len(begun.cut) :])

    async def pass_on(self, events: Iterable[Read]) -> bool:
        """Write events, all that are covered in one write; False: the stream has been ended."""
        ready: list[bytes] = []
        reading, allowance, turns = self._reading, self._allowance, self._turns
        turns.begin()
        for found in events:
            read = await decoded_off_loop(partial(reading.read, found)) if found.is_unread else found
            if allowance is not None and self._meter.text_deltas != self._asked_at:
                if not await self._is_covered(allowance, ready):
                    await self._cut(allowance, read)
                    return False
            if self._holds_large or _is_large(read):
                ready.append(await decoded_off_loop(partial(self._admitted, read)))
                self._holds_large = reading.holds_large
            else:
                ready.append(self._admitted(read))
            if reading.error is not None:
                await self.withhold(b"".join(ready), reading.error)
                return False
            if turns.is_over:
                await self.write(b"".join(ready))
                ready.clear()
                await turns.give()
        turns.end()
        data = b"".join(ready)
        if data:
            self._note(data)
        if data or self._is_full:
            await self._downstream.write(data)
            self._is_full = False
        return True

    def _admitted(self, read: Read) -> bytes:
        """Return what may be sent once an event may, and follow it."""
        reading = self._reading
        sent = reading.admit(read)
        if reading.error is None:
            if read.frame is not None and read.frame.number:
                self._follow_number(read.frame.number)
            elif self._follows and read.event is not None and read.document is not None:
                self._end.follow(read.event.data, read.document)
        if len(read.cut) > json_steps.LARGE_BYTES:
            reading.let_go(read)
        return sent

    async def _is_covered(self, allowance: Allowance, before: list[bytes]) -> bool:
        """Ask for cover of the latest text; what was covered `before` is sent without waiting for the answer."""
        if not allowance.covers(self._meter):
            await self.write(b"".join(before))
            before.clear()
            if not await allowance.extend(self._meter):
                return False
        self._asked_at = self._meter.text_deltas
        return True

    async def _cut(self, allowance: Allowance, dropped: Read) -> None:
        """End the stream before an event that is not covered."""
        answer = self._answer
        answer.reply.close()  # anything generated while the client reads would have to be paid for
        left = await decoded_off_loop(self._reading.decided) if self._holds_large else self._reading.decided()
        last = self._end.finish(self._reading.document_of(dropped)) if answer.at_limit == "finish" else None
        if _is_large(dropped):
            await off_loop(partial(self._reading.let_go, dropped))
        self._meter.cut = True
        if answer.mid_event:  # nothing well-formed can follow a part of an event
            self._seal()
            self._downstream.cut()
            return
        await self.finish(left + (last or self._end.fail(reason_of(allowance))))

    async def withhold(self, before: bytes, error: ProxyError) -> None:
        """End the stream with an error, after the text before the place that the policy forbids."""
        self._answer.reply.close()
        self._meter.withheld = True
        await self.finish(before + self._end.fail(error))

    async def finish(self, last: bytes) -> None:
        """Record the answer, then write its last bytes and end it."""
        self._answer.keep(last)
        self._seal()
        if last:
            await self._downstream.write(last)
        await self._downstream.finish()

    async def write(self, data: bytes) -> None:
        """Write bytes, if there are any."""
        if data:
            self._note(data)
            await self._downstream.write(data)

    def _seal(self) -> None:
        self._reading.note()
        self._answer.seal()

    def _note(self, data: bytes) -> None:
        """Take note of bytes that are written next; the record is made now if they may be the last."""
        answer = self._answer
        answer.keep(data)
        if self._meter.terminated:
            self._seal()
        answer.mid_event = self._reading.mid_event


def _is_large(read: Read) -> bool:
    """Tell whether an event is worked on apart from the event loop."""
    return len(read.cut) > LARGE_BYTES
