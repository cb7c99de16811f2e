"""One provider's stream: decoded, split into events, metered, scanned and edited, event by event. No I/O.

    piece -> decode -> cut -> meter ----> admit: remove usage that only we requested, scan -> what may be sent
                              `- the relay may stop between these two: a metered event is not admitted yet

Nearly every event repeats the one before it with another text (`openai.repeated`): then only that text is decoded.

Failure mode: an event of more than `event_bytes` is not parsed. It passes in parts as they arrive, unless it must be
edited or the policy requires everything to be scanned; all of it counts as text, so that an allowance limits it too.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from proxy.errors import ProxyError, UpstreamFailed
from proxy.event_loop.off_loop import LARGE_BYTES
from proxy.openai import json_steps, lenient
from proxy.openai.channel_keys import Key
from proxy.openai.decoding import Decoder
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_object
from proxy.openai.pieces import utf8_len
from proxy.openai.repeated import Frame, frame_of
from proxy.openai.sse import CR, Event, EventReader, single_event
from proxy.openai.sse_aside import may_have_asides, with_asides
from proxy.openai.sse_cut import EventCutter, is_outside
from proxy.openai.sse_frame import reframed
from proxy.openai.stream_usage import strip_usage
from proxy.relay.answer import Answer
from proxy.relay.scanned import ScannedStream
from proxy.relay.sse import DECODED_PIECE_BYTES, check_complete

_MOST_USELESS: Final = 16
"""After so many events in succession that repeat none, no more frames are made: each costs as much as decoding."""
_LINES_BYTES: Final = 32_768
"""So much of a piece of many events is cut at once, in a millisecond; others get their turn before the next."""
_MOST_OTHERS: Final = 3
"""How many frames are kept beside the latest: of other choices, texts and calls that take turns."""


class Read(NamedTuple):
    """One item of the stream."""

    cut: bytes
    event: Event | None
    """`None`: a comment, a blank line, or a part of an event too large to be held."""
    document: dict[str, Any] | None
    """The event's data as it was metered; `None` if it is not a JSON object, or comes after the terminator."""
    is_part: bool = False
    frame: Frame | None = None
    """What the event repeats; then it has neither `event` nor `document`, but a `text`."""
    text: str = ""
    is_unread: bool = False
    """It is large and was not metered: pass it to `Reading.read` first, apart from the event loop."""


class Reading:
    """Reads one stream. Everything that `events` and `rest` yield must be admitted, in order, or the stream ends."""

    def __init__(self, answer: Answer, event_bytes: int) -> None:
        self._answer = answer
        self._event_bytes = event_bytes
        self._most_at_once = min(event_bytes, LARGE_BYTES)
        """Larger events are read apart from the event loop, and repeat none."""
        self._strips = answer.strip_usage
        self._swallows_lf = False
        """The last event was removed and ended with a CR, so a LF that follows belongs to it."""
        encoding = answer.content_encoding
        self._decoder = Decoder(encoding, DECODED_PIECE_BYTES) if encoding else None
        # The reader counts a CRLF as one: what is too large to be held whole is too large to be parsed.
        self._cutter = EventCutter(2 * event_bytes + 1024)
        self.is_between = False
        """The next byte may begin an event."""
        self._meter = answer.attempt.meter
        self._observer = StreamObserver(answer.dialect, self._meter)
        self._frame: Frame | None = None
        """The one that was repeated or made last."""
        self._others: list[Frame] = []
        """Earlier ones, as those of other choices."""
        self.text = ""
        """Of the latest event that repeated a frame."""
        self._useless = 0
        """Number of events since the last repetition."""
        self._reader = EventReader(event_bytes)
        scanner = answer.scanner
        self._scan = scan = None if scanner is None else ScannedStream(answer.dialect, scanner, reframed)
        self.passes: Callable[[Key, str], bool] = _unscanned if scan is None else scan.passes
        """Tells whether an event that repeats a frame may leave as it is; if not, `admit_repeated` comes next."""

    @property
    def all_finished(self) -> bool:
        """True if all choices or items that began have ended."""
        return self._observer.all_finished

    @property
    def mid_event(self) -> bool:
        """True while an event has been returned in part."""
        return self._cutter.mid_event

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event."""
        return self._cutter.held_bytes

    @property
    def holds_large(self) -> bool:
        """True while a large event waits for the scanner: what lets it go is done apart from the event loop."""
        return self._scan is not None and self._scan.holds_large

    @property
    def error(self) -> ProxyError | None:
        """Why the policy ends the stream; `None` while it does not."""
        return None if self._scan is None else self._scan.error

    def decoded(self, piece: bytes) -> Iterable[bytes]:
        """Return a piece of the body with its encoding removed."""
        return (piece,) if self._decoder is None else self._decoder.feed(piece)

    def events(self, plain: bytes) -> Iterable[Read]:
        """Return the items of a piece, each metered only when it is requested."""
        read = self.whole(plain)
        return self._cut(plain) if read is None else (read,)

    def whole(self, plain: bytes) -> Read | None:
        """Return the item of a piece that is exactly one event, metered; `None`: it is none, or not known to be one.

        Nearly every piece is: neither the cutter nor the reader has to see it.
        """
        if not self.is_between or len(plain) > self._most_at_once:
            return None
        if (frame := self.repeated(plain)) is not None:
            return Read(plain, None, None, False, frame, self.text)
        event = None if CR in plain else single_event(plain)
        return None if event is None else self._metered(plain, event, is_part=False)

    def _cut(self, plain: bytes) -> Iterator[Read]:
        at = 0
        while at < len(plain):
            stop = plain.find(b"\n", at + _LINES_BYTES) + 1 or len(plain)
            yield from self._cut_lines(plain[at:stop])
            at = stop
        self.is_between = self._cutter.is_between

    def _cut_lines(self, plain: bytes) -> Iterator[Read]:
        ends_part = self._cutter.mid_event
        cuts = self._cutter.feed(plain)
        begins_part = cuts[-1] if self._cutter.mid_event and cuts else None
        for cut in cuts:
            is_part = ends_part or cut is begins_part
            ends_part = False
            if not is_part and is_outside(cut):
                self._reader.begin()
                yield Read(cut, None, None)
                continue
            unread = Read(cut, None, None, is_part, is_unread=True)
            yield unread if len(cut) > LARGE_BYTES and not is_part else self.read(unread)

    def read(self, unread: Read) -> Read:
        """Return an item metered."""
        cut, is_part = unread.cut, unread.is_part
        frame = None if is_part else self.repeated(cut)
        if frame is not None:
            return Read(cut, None, None, False, frame, self.text)
        found = self._reader.feed(cut)
        return self._metered(cut, found[0] if found else None, is_part=is_part)

    def rest(self) -> Iterator[Read]:
        """Yield the unfinished event at the end of the stream."""
        if self._decoder is not None:
            check_complete(self._decoder, self._answer)
        cut = self._cutter.flush()
        found = self._reader.feed(cut)
        event = found[0] if found else self._reader.flush()
        if cut or event is not None:
            yield self._metered(cut, event, is_part=self._cutter.mid_event)

    def admit(self, read: Read) -> bytes:
        """Return what may be sent once an event may.

        Raises:
            UpstreamFailed: it must be edited and is too large for that.
        """
        cut, event, document, is_part, frame, text, _ = read
        if self._swallows_lf:
            self._swallows_lf = False
            if cut == b"\n":
                return b""
        if frame is not None:
            return _sent_of(frame, cut) if self.passes(frame.key, text) else self.admit_repeated(frame, cut, text)
        if is_part:
            return self._admit_part(cut)
        if self._scan is not None and may_have_asides(cut, event):
            cut = with_asides(cut, self._aside)
        if event is None:
            return cut if self._scan is None else self._passed_by(cut)
        data = event.data
        if self._strips and document is not None:
            stripped = strip_usage(data, document)
            if stripped is None:
                self._swallows_lf = cut.endswith(b"\r")
                return b""
            if stripped is not data:
                data, cut = stripped, reframed(cut, stripped)
        return self._admit_event(cut, Event(event.name, data), document)

    def admit_repeated(self, frame: Frame, cut: bytes, text: str) -> bytes:
        """Return what may be sent once a chunk may that repeats `frame` and has to wait for the scanner."""
        assert self._scan is not None
        sent = _sent_of(frame, cut)
        return b"".join(self._scan.take_usual(sent, sent[frame.data_at : -2], frame.key, frame.path, text))

    def note(self) -> None:
        """Record how much was scanned: before the record is made of the answer."""
        if self._scan is not None:
            self._scan.note()

    def let_go(self, read: Read) -> None:
        """Free the document of an event that is done with; call it apart from the event loop if the event is large."""
        if read.document is not None:
            json_steps.let_go(read.document, read.cut)

    def held(self) -> bytes:
        """Return what was held, at the end of the stream."""
        return b"" if self._scan is None else b"".join(self._scan.end())

    def decided(self) -> bytes:
        """Return the decided part of what was held, when the stream was cut, by the provider or by us."""
        return b"" if self._scan is None else b"".join(self._scan.abandon())

    def document_of(self, read: Read) -> dict[str, Any]:
        """Return the document of an event, even of one that was not decoded; empty if it has none."""
        if read.frame is not None:
            return load_object(read.cut[read.frame.data_at : -2]) or {}
        return read.document or {}

    def repeated(self, cut: bytes) -> Frame | None:
        """Meter a whole event if it repeats a frame; return that, and store the event's text in `text`."""
        frame = self._frame
        if frame is None or len(cut) > self._most_at_once:
            return None
        if not (text := frame.text_of(cut)):
            if (found := self._repeated_other(cut)) is None:
                return None
            frame, text = found
        self._useless = 0
        self.text = text
        meter = self._meter  # counted here, as nearly every event passes
        meter.events += 1
        meter.text_deltas += 1
        if frame.call is None:
            meter.output_text_bytes += len(text) if text.isascii() else utf8_len(text)
        else:
            self._observer.observe_arguments(*frame.call, text)
        return frame

    def _repeated_other(self, cut: bytes) -> tuple[Frame, str] | None:
        """Return an earlier frame that an event repeats, from now on the first one, and the event's text."""
        for at, frame in enumerate(self._others):
            if (text := frame.text_of(cut)) and self._frame is not None:
                self._others[at], self._frame = self._frame, frame
                return frame, text
        return None

    def _look_for_frame(self, cut: bytes, document: dict[str, Any] | None) -> None:
        """Prepare for repetitions of an event that was just metered; there are none once nothing is read any more."""
        if document is None:
            self._frame = None
        elif self._useless < _MOST_USELESS and len(cut) <= self._most_at_once:
            self._useless += 1
            if (frame := frame_of(cut, document, self._answer.dialect, strips_usage=self._strips)) is not None:
                if self._frame is not None:
                    self._others = [self._frame, *self._others[: _MOST_OTHERS - 1]]
                self._frame = frame

    def _metered(self, cut: bytes, event: Event | None, *, is_part: bool) -> Read:
        document = None if event is None else self._observer.observe(event)
        if event is not None:
            self._look_for_frame(cut, document)
        if event is not None and not event.data and len(cut) > self._event_bytes:
            is_part = True  # too large to be read
        if is_part:
            self._observer.count_unread(len(cut))
        return Read(cut, event, document, is_part)

    def _admit_event(self, cut: bytes, event: Event, document: dict[str, Any] | None) -> bytes:
        if self._scan is None:
            return cut
        if self._scan.error is not None:
            return b"".join(self._scan.abandon())
        data = event.data
        known = lenient.read_container(data) if document is None else document
        taken = self._scan.take(cut, data, event.name, known)
        if document is None:
            json_steps.let_go(known, data)
        return b"".join(taken)

    def _passed_by(self, cut: bytes) -> bytes:
        assert self._scan is not None
        return b"".join(self._scan.abandon() if self._scan.error is not None else self._scan.pass_by(cut, len(cut)))

    def _aside(self, text: bytes) -> bytes:
        assert self._scan is not None
        return self._scan.aside(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _admit_part(self, cut: bytes) -> bytes:
        if self._strips:
            raise UpstreamFailed(
                f"The provider sent a stream event of more than {self._event_bytes} bytes.",
                code="upstream_event_too_large",
            )
        if self._scan is None:
            return cut
        self._scan.miss("event", "too_large")
        return b"" if self._scan.error is not None else b"".join(self._scan.pass_by(cut, len(cut)))


def _sent_of(frame: Frame, cut: bytes) -> bytes:
    return cut if frame.is_sent_whole else frame.sent(cut)


def _unscanned(_key: Key, _said: str) -> bool:
    return True
