"""Server-sent events: splits a stream between events.

For a relay that may have to stop between two events: it never holds back more than one event, and never releases a part
of one. Blank lines and comments outside an event are meaningless and do not wait for one: providers use them to keep a
slow answer alive. Those that arrive together are one piece: a megabyte can hold a million.

Rule of the file: no byte is changed, and the pieces add up to the stream. The boundaries of events do not depend on how
the stream was split before; a LF that arrives after its CR is a piece of its own.

Failure mode: an event above the limit is returned in parts, as they arrive. Nothing raises.
Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

import re
from collections.abc import Iterator
from typing import Final

from proxy.openai.sse import BOM, CR
from proxy.openai.sse_aside import SHORTEST

_FEW: Final = 16
_FIELDS = (b"data:", b"event:", b"id:")
_TELLING = len(BOM) + 2
"""How many first bytes of a line tell whether it is empty or a comment."""
OUTSIDE: Final = b"\n\r:"
"""First bytes of lines that mean nothing outside an event."""
END: Final = rb"(?:\r\n|\n|\r)"
LINE: Final = re.compile(rb"[^\r\n]*+%b?" % END)
MEANINGLESS: Final = re.compile(rb"(?:\n++|(?:: ?[^\r\n]{0,%d}+)?%b)++" % (SHORTEST - 1, END))
"""Blank lines and comments too short to be scanned. A longer one is a piece of its own: the policy may end the stream
there."""
INSIDE: Final = re.compile(rb"(?:[^\r\n]++%b)++" % END)
"""Lines that end no event."""


def is_crowded(chunk: bytes) -> bool:
    """Tell whether a piece has so many lines that it is worth while to look for those that can be taken together."""
    return len(chunk) > _FEW and (chunk.count(b"\n") > _FEW or chunk.count(b"\r") > _FEW)


def is_outside(cut: bytes) -> bool:
    """Tell whether a piece that is no part of a large event consists of blank lines and comments."""
    return cut[0] in OUTSIDE


class EventCutter:
    """Splits one stream. `limit`: the most bytes that are held for one event."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        """Bytes of the current event that were not returned yet."""
        self._line_bytes = 0
        """Size of the unfinished line, including what was returned of it."""
        self._inside = False
        self._first = True
        self._after_cr = False
        self.mid_event = False
        """True while an event has been returned in part."""

    @property
    def is_between(self) -> bool:
        """True if an event may begin with the next byte: nothing is held, and no byte order mark can precede it."""
        return not (self._held or self._inside or self._after_cr or self._first)

    @property
    def held_bytes(self) -> int:
        """Size of what `flush` returns."""
        return len(self._held)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return whole events, each with its blank line, and what is between them. About 0.5 us for one event."""
        if self._held or self._inside or self._after_cr or CR in chunk or not chunk.endswith(b"\n\n"):
            return self._feed_lines(chunk)
        if chunk[0] in OUTSIDE:
            return self._feed_lines(chunk)
        blocks = chunk[:-2].split(b"\n\n")
        for block in blocks:
            if not block.startswith(_FIELDS) or block.endswith(b"\n"):
                return self._feed_lines(chunk)
        self._first = False
        return [chunk] if len(blocks) == 1 else [block + b"\n\n" for block in blocks]

    def flush(self) -> bytes:
        """Return the held part of an event without an end."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _feed_lines(self, chunk: bytes) -> list[bytes]:
        cuts = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
                if self._inside:
                    self._held += b"\n"
                else:
                    cuts.append(b"\n")
        for line in self._runs(chunk) if is_crowded(chunk) else chunk.splitlines(keepends=True):
            self._held += line
            self._line_bytes += len(line)
            if line.endswith((b"\n", b"\r")) and self._ends_here():
                cuts.append(self.flush())
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        if len(self._held) > self._limit:
            cuts.append(self.flush())
            self._inside = self.mid_event = True
        return cuts

    def _runs(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines of a piece, in one piece those that change nothing, neither inside an event nor outside."""
        at, size = 0, len(chunk)
        while at < size:
            run = None
            if not self._line_bytes and not self._first:
                run = (INSIDE if self._inside else MEANINGLESS).match(chunk, at)
            found = run or LINE.match(chunk, at)
            assert found is not None  # it matches anywhere
            at = found.end()
            yield found[0]

    def _ends_here(self) -> bool:
        """Take the lines that have ended; tell whether an event ends with them, or whether they are outside of any."""
        begin, self._line_bytes = len(self._held) - self._line_bytes, 0
        # Its beginning tells: a line of megabytes is not copied, as that keeps the event loop.
        content = self._held[begin : begin + _TELLING] if begin >= 0 else b"cut"
        if self._first:
            self._first = False
            content = content.removeprefix(BOM)
        if content[0] not in (b"\n\r" if self._inside else OUTSIDE):
            self._inside = True
            return False
        self._inside = self.mid_event = False
        return True
