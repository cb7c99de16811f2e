"""Server-sent events: reads a stream of bytes that is relayed elsewhere.

Line ends are normalised first (CR, LF and CRLF are equal, even if a chunk ends between CR and LF), then an event ends
at an empty line. The events are the same for every way of splitting the stream into chunks.

Failure mode: an event above the limit is reported by its name only, so that a stream's end is still recognised. Nothing
raises. Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

import re
from dataclasses import dataclass
from typing import Final

BOM = b"\xef\xbb\xbf"
CR = 0x0D
"""As a number: searching for a byte takes a fraction of the time of searching for bytes."""
_NAME_WINDOW = 4096
_BLANKS: Final = re.compile(rb"\n{3,}+")
_COMMENTS: Final = re.compile(rb"(?<![^\n])(?::[^\n]*+\n)++")


@dataclass(slots=True)
class Event:
    """One event. `name`: from its `event:` line. `data`: its data lines joined by LF; empty without any."""

    name: bytes | None
    data: bytes


def single_event(chunk: bytes) -> Event | None:
    """Return the event of a chunk that is exactly `data: ` and its data on one line and an empty line, else `None`.

    Nearly every event of nearly every provider arrives like that, so it is tried first (bench/wire_format.py).
    """
    if chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.find(b"\n") == len(chunk) - 2:
        return Event(None, chunk[6:-2])
    return None


class EventReader:
    """Reads a stream in passing. `limit`: larger events are reported without their data."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._searched = 0
        self._started = False
        self._after_cr = False
        self._oversized: Event | None = None

    @property
    def mid_event(self) -> bool:
        """True inside an event: anything written now would become a part of it."""
        if not self._pending:
            return self._oversized is not None
        return self._oversized is not None or bool(self._pending.strip(b"\n"))

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished event, if it is not too large to be read."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completed. An ordinary event costs about 0.5 us."""
        if CR in chunk or self._after_cr:
            chunk = self._with_plain_ends(chunk)
        if not self._started and not self._pending and chunk[:1] not in BOM:
            self._started = True
        if self._pending or not self._started or not chunk.endswith(b"\n\n"):
            return self._feed_buffered(chunk)
        if (event := single_event(chunk)) is not None and len(chunk) <= self._limit:
            return [event]
        return _split(chunk, self._limit)

    def begin(self) -> None:
        """Know that the stream has begun, with something else: no byte order mark follows."""
        self._started = True

    def flush(self) -> Event | None:
        """Return the event without an empty line at the stream's end; `None` if there is none."""
        rest, self._pending, self._searched = bytes(self._pending), bytearray(), 0
        oversized, self._oversized = self._oversized, None
        if oversized is not None:
            return oversized
        return _parse(rest) if rest.strip(b"\n") else None

    def _feed_buffered(self, chunk: bytes) -> list[Event]:
        pending = self._pending
        pending += chunk
        if not self._started and not self._skip_bom():
            return []
        end = pending.rfind(b"\n\n", self._searched)
        if end < 0:
            self._searched = max(len(pending) - 1, 0)
            self._shed()
            return []
        self._pending = pending[end + 2 :]
        del pending[end + 2 :]
        complete = bytes(pending)
        self._searched = max(len(self._pending) - 1, 0)
        events = self._after_oversized(complete)
        self._shed()
        return events

    def _after_oversized(self, complete: bytes) -> list[Event]:
        if self._oversized is None:
            if len(complete) <= self._limit and (event := single_event(complete)) is not None:
                return [event]
            return _split(complete, self._limit)
        oversized, self._oversized = self._oversized, None
        return [oversized, *_split(complete[complete.find(b"\n\n") + 2 :], self._limit)]

    def _shed(self) -> None:
        """Drop an event that has become too large; keep looking for its end."""
        if len(self._pending) > self._limit + 1:
            if self._oversized is None:
                self._oversized = Event(_name_of(self._pending), b"")
            del self._pending[:-1]
            self._searched = 0

    def _skip_bom(self) -> bool:
        if len(self._pending) < len(BOM) and BOM.startswith(self._pending):
            return False
        if self._pending.startswith(BOM):
            del self._pending[: len(BOM)]
        self._started = True
        return True

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        """Convert CRLF and CR to LF. A LF at the start belongs to a CR that ended the previous chunk."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _split(text: bytes, limit: int) -> list[Event]:
    """Return the events in `text`, which ends with an empty line and has normalised line ends."""
    events = []
    if b"\n\n\n" in text:  # there can be a million, and each would be a block
        text = _BLANKS.sub(b"\n\n", text)
    for block in text[:-2].split(b"\n\n"):
        if len(block) > limit:
            events.append(Event(_name_of(block), b""))
        elif block.startswith(b"data: ") and b"\n" not in block:
            events.append(Event(None, block[6:]))
        elif (event := _parse(block)) is not None:
            events.append(event)
    return events


def _parse(block: bytes) -> Event | None:
    """Return the event of the lines in `block`; `None` if none of them is a data line."""
    name, values = None, []
    if b"\n:" in block:
        block = _COMMENTS.sub(b"", block)
    for line in block.split(b"\n"):
        label, value = split_field(line)
        if label == b"data":
            values.append(value)
        elif label == b"event":
            name = value
    return Event(name, b"\n".join(values)) if values else None


def _name_of(head: bytes | bytearray) -> bytes | None:
    """Return the name of an event too large to be parsed, if it is near its beginning."""
    for line in bytes(head[:_NAME_WINDOW]).split(b"\n"):
        label, value = split_field(line)
        if label == b"event":
            return value
    return None


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into field name and value; the name of a comment is empty."""
    label, _, value = line.partition(b":")
    return label, value[1:] if value.startswith(b" ") else value
