"""One provider's stream: decoded, split into events, metered, scanned and edited, event by event. No I/O.

    piece -> decode -> cut -> meter ----> admit: remove usage that only we requested, scan -> what may be sent
                              `- the relay may stop between these two: a metered event is not admitted yet

Failure mode: an event of more than `event_bytes` is not parsed. It passes in parts as they arrive, unless it must be
edited or the policy requires everything to be scanned; all of it counts as text, so that an allowance limits it too.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from proxy.errors import ProxyError, UpstreamFailed
from proxy.openai.decoding import Decoder
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_container
from proxy.openai.sse import CR, Event, EventReader, single_event
from proxy.openai.sse_cut import EventCutter
from proxy.openai.sse_frame import reframed
from proxy.openai.stream_usage import strip_usage
from proxy.relay.answer import Answer
from proxy.relay.scanned import ScannedStream
from proxy.relay.sse import DECODED_PIECE_BYTES, check_complete


class Read(NamedTuple):
    """One item of the stream."""

    cut: bytes
    event: Event | None
    """`None`: a comment, a blank line, or a part of an event too large to be held."""
    document: dict[str, Any] | None
    """The event's data as it was metered; `None` if it is not a JSON object, or comes after the terminator."""
    is_part: bool


class Reading:
    """Reads one stream. Everything that `events` and `rest` yield must be admitted, in order, or the stream ends."""

    def __init__(self, answer: Answer, event_bytes: int) -> None:
        self._answer = answer
        self._event_bytes = event_bytes
        self._strips = answer.strip_usage
        self._swallows_lf = False
        """The last event was removed and ended with a CR, so a LF that follows belongs to it."""
        encoding = answer.content_encoding
        self._decoder = Decoder(encoding, DECODED_PIECE_BYTES) if encoding else None
        # The reader counts a CRLF as one: what is too large to be held whole is too large to be parsed.
        self._cutter = EventCutter(2 * event_bytes + 1024)
        self._observer = StreamObserver(answer.dialect, answer.attempt.meter)
        self._reader = EventReader(event_bytes)
        scanner = answer.scanner
        self._scan = None if scanner is None else ScannedStream(answer.dialect, scanner, reframed)

    @property
    def all_finished(self) -> bool:
        """True if all choices or items that began have ended."""
        return self._observer.all_finished

    @property
    def mid_event(self) -> bool:
        """True while an event has been returned in part."""
        return self._cutter.mid_event

    @property
    def error(self) -> ProxyError | None:
        """Why the policy ends the stream; `None` while it does not."""
        return None if self._scan is None else self._scan.error

    def decoded(self, piece: bytes) -> Iterable[bytes]:
        """Return a piece of the body with its encoding removed."""
        return (piece,) if self._decoder is None else self._decoder.feed(piece)

    def events(self, plain: bytes) -> Iterator[Read]:
        """Yield the items of a piece, each metered only when it is requested."""
        if self._cutter.is_between and CR not in plain and len(plain) <= self._event_bytes:
            # Nearly every piece is exactly one event: neither the cutter nor the reader has to see it.
            if (event := single_event(plain)) is not None:
                yield self._metered(plain, event, is_part=False)
                return
        ends_part = self._cutter.mid_event
        cuts = self._cutter.feed(plain)
        begins_part = cuts[-1] if self._cutter.mid_event and cuts else None
        for cut in cuts:
            found = self._reader.feed(cut)
            yield self._metered(cut, found[0] if found else None, is_part=ends_part or cut is begins_part)
            ends_part = False

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
        cut, event, document, is_part = read
        if self._swallows_lf:
            self._swallows_lf = False
            if cut == b"\n":
                return b""
        if is_part:
            return self._admit_part(cut)
        if event is None:
            return cut if self._scan is None else b"".join(self._scan.pass_by(cut, len(cut)))
        data = event.data
        if self._strips and document is not None:
            stripped = strip_usage(data, document)
            if stripped is None:
                self._swallows_lf = cut.endswith(b"\r")
                return b""
            if stripped is not data:
                data, cut = stripped, reframed(cut, stripped)
        if self._scan is None:
            return cut
        if document is None:
            document = load_container(data)
        return b"".join(self._scan.take(cut, data, event.name, document))

    def held(self) -> bytes:
        """Return what was held, at the end of the stream."""
        return b"" if self._scan is None else b"".join(self._scan.end())

    def decided(self) -> bytes:
        """Return the decided part of what was held, when the stream was cut, by the provider or by us."""
        return b"" if self._scan is None else b"".join(self._scan.abandon())

    def _metered(self, cut: bytes, event: Event | None, *, is_part: bool) -> Read:
        document = None if event is None else self._observer.observe(event)
        if event is not None and not event.data and len(cut) > self._event_bytes:
            is_part = True  # too large to be read
        if is_part:
            self._observer.count_unread(len(cut))
        return Read(cut, event, document, is_part)

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
