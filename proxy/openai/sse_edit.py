"""Server-sent events: removes parts of a stream in passing, without changing or delaying the rest.

The result of `feed` may be sent at once. Lines are held only until they end; fields before the data (`event:`, `id:`)
wait for the data, as they mean nothing alone. Whether an event is kept, changed or dropped is decided at its first data
line if that looks complete (as many `{` as `}`), else at its empty line:

              first data line, or empty line       empty line
    OPEN ------------------------------------> KEEP ----------> OPEN
       `-------------------------------------> DROP ------------^

Unchanged bytes are never rebuilt: CR, CRLF, comments and a byte order mark are preserved. The output is the same for
every way of splitting the stream into chunks.

Failure mode: an event above the limit cannot be held and ends the stream (UpstreamFailed).
Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from proxy.errors import UpstreamFailed
from proxy.openai.sse import BOM, CR, Event, single_event, split_field
from proxy.openai.sse_cut import END, INSIDE, LINE, OUTSIDE, is_crowded

_MEANINGLESS: Final = re.compile(rb"(?:\n++|(?::[^\r\n]*+)?%b)++" % END)

Edit = Callable[[Event], bytes | None]
"""Return the event's data, the same or changed, or `None` to drop the event. Called once per event with data."""


class _State(Enum):
    OPEN = 1
    KEEP = 2
    DROP = 3


class _Fate(Enum):
    """The decision for the last line: a LF that arrives after its CR shares it."""

    SENT = 1
    HELD = 2
    SWALLOWED = 3


class EventEditor:
    """Edits one stream. `limit`: the most bytes that may be held for one event."""

    def __init__(self, edit: Edit, limit: int) -> None:
        self._edit = edit
        self._limit = limit
        self._partial = bytearray()
        self._first = True
        self._after_cr = False
        self._unfinished = False
        self._fate = _Fate.SENT
        self._begin_event()

    @property
    def mid_event(self) -> bool:
        """True while an event has been returned in part."""
        return self._state is _State.KEEP

    @property
    def held_bytes(self) -> int:
        """Size of what is held."""
        return len(self._partial) + self._held_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be sent now. An ordinary event costs about 0.5 us on top of the edit.

        Raises:
            UpstreamFailed: code upstream_event_too_large.
        """
        if CR in chunk or self._unfinished or self._partial or self._after_cr:
            return self._feed_lines(chunk)
        if (event := single_event(chunk)) is not None:
            self._first = False
            edited = self._edit(event)
            if edited is event.data:
                return chunk
            return b"" if edited is None else b"data: %b\n\n" % edited
        if not chunk.endswith(b"\n\n") or chunk[0] in OUTSIDE or b"\n\n\n" in chunk:
            return self._feed_lines(chunk)
        return self._feed_whole(chunk)

    def _feed_whole(self, chunk: bytes) -> bytes:
        """Take several complete events at once."""
        out = []
        for block in chunk[:-2].split(b"\n\n"):
            if block.startswith(b"data: ") and b"\n" not in block:
                self._first = False
                data = block[6:]
                edited = self._edit(Event(None, data))
                if edited is not None:
                    out.append(block if edited is data else b"data: " + edited)
                    out.append(b"\n\n")
            else:
                out.append(self._feed_lines(block + b"\n\n"))
        return b"".join(out)

    def flush(self) -> tuple[bytes, bool]:
        """Return what was still held at the stream's end, and whether an event lacks its empty line."""
        out = b""
        if self._partial:
            out = self._take_line(self._whole_line(b""))
        if self._state is _State.OPEN:
            out += self._release()
        return out, self._unfinished

    def _begin_event(self) -> None:
        self._state = _State.OPEN
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._name: bytes | None = None
        self._values: list[bytes] = []
        self._value_lines: list[int] = []

    def _feed_lines(self, chunk: bytes) -> bytes:
        out = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                out.append(self._take_late_lf())
                chunk = chunk[1:]
        for line in self._runs(chunk, out) if is_crowded(chunk) else chunk.splitlines(keepends=True):
            if line.endswith((b"\n", b"\r")):
                out.append(self._take_line(self._whole_line(line)))
            else:
                self._partial += line
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        self._check_size()
        return b"".join(out)

    def _runs(self, chunk: bytes, out: list[bytes]) -> Iterator[bytes]:
        """Yield the lines of a piece, but take at once those that share the fate of the event, or mean nothing."""
        at, size = 0, len(chunk)
        while at < size:
            if not (self._partial or self._first or self._held):
                if run := (_MEANINGLESS if self._state is _State.OPEN else INSIDE).match(chunk, at):
                    at = run.end()
                    out.append(self._take_run(run[0]))
                    continue
            line = LINE.match(chunk, at)
            assert line is not None  # it matches anywhere
            at = line.end()
            yield line[0]

    def _take_run(self, run: bytes) -> bytes:
        if self._state is _State.DROP:
            self._fate = _Fate.SWALLOWED
            return b""
        self._fate = _Fate.SENT
        before = run[: -2 if run.endswith(b"\r\n") else -1]
        self._unfinished = bool(before) and not before.endswith((b"\n", b"\r"))
        return run

    def _whole_line(self, end: bytes) -> bytes:
        if not self._partial:
            return end
        line = bytes(self._partial) + end
        self._partial.clear()
        return line

    def _check_size(self) -> None:
        if len(self._partial) + self._held_bytes > self._limit:
            raise UpstreamFailed(
                f"The provider sent a stream event of more than {self._limit} bytes.", code="upstream_event_too_large"
            )

    def _take_late_lf(self) -> bytes:
        if self._fate is _Fate.HELD:
            self._held[-1] += b"\n"
        return b"\n" if self._fate is _Fate.SENT else b""

    def _take_line(self, line: bytes) -> bytes:
        content = line.rstrip(b"\r\n")
        if self._first:
            self._first = False
            content = content.removeprefix(BOM)
        if not content:
            return self._end_event(line)
        self._unfinished = True
        if self._state is _State.KEEP:
            self._fate = _Fate.SENT
            return line
        if self._state is _State.DROP:
            self._fate = _Fate.SWALLOWED
            return b""
        return self._take_open_line(line, content)

    def _take_open_line(self, line: bytes, content: bytes) -> bytes:
        label, value = split_field(content)
        if not label and not self._held:
            self._fate = _Fate.SENT
            return line
        self._fate = _Fate.HELD
        self._held.append(line)
        self._held_bytes += len(line)
        if label == b"event":
            self._name = value
        if label != b"data":
            return b""
        self._value_lines.append(len(self._held) - 1)
        self._values.append(value)
        if len(self._values) == 1 and value.count(b"{") == value.count(b"}"):
            return self._release()
        return b""

    def _end_event(self, line: bytes) -> bytes:
        out = self._release() if self._state is _State.OPEN else b""
        dropped = self._state is _State.DROP
        self._fate = _Fate.SWALLOWED if dropped else _Fate.SENT
        self._unfinished = False
        self._begin_event()
        return b"" if dropped else out + line

    def _release(self) -> bytes:
        """Decide on the current event and return the held part of it."""
        out = b"".join(self._held)
        self._state, self._fate = _State.KEEP, _Fate.SENT
        if self._values:
            data = b"\n".join(self._values)
            edited = self._edit(Event(self._name, data))
            if edited is None:
                self._state, self._fate = _State.DROP, _Fate.SWALLOWED
                out = b""
            elif edited != data:
                out = self._reframed(edited)
        self._held.clear()
        self._held_bytes = 0
        return out

    def _reframed(self, edited: bytes) -> bytes:
        """Return the held lines with `edited` in place of the first data line, framed like it, without the others."""
        first = self._value_lines[0]
        line, value = self._held[first], self._values[0]
        content = line.rstrip(b"\r\n")
        prefix = content[: len(content) - len(value)] if value else b"data: "
        end = line[len(content) :]
        renewed = b"".join(prefix + piece + end for piece in edited.split(b"\n"))
        others = set(self._value_lines[1:])
        return b"".join(
            renewed if index == first else held for index, held in enumerate(self._held) if index not in others
        )
