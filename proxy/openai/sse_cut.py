"""Server-sent events: cutting a stream where one event ends and the next begins.

For a relay that may have to stop between two events: what it holds back is never more than one event, and what it has
let go is never a part of one. Blank lines and comments outside an event mean nothing and do not wait for one: they are
how providers keep a slow answer alive.

Rule of the file: no byte is changed, all bytes of the cuts together are the stream. Where the cuts lie does not depend
on how the stream came in pieces; a LF that came later than its CR is a cut of its own.

Failure mode: an event above the limit goes on in parts, as they come. Nothing raises.
Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

from proxy.openai.sse import BOM, CR

_FIELDS = (b"data:", b"event:", b"id:")


class EventCutter:
    """Cuts one stream. `limit`: the most bytes that are held for one event."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        """What has come of the current event and has not been returned."""
        self._line_bytes = 0
        """Size of the line that has not ended, counting what has been returned of it."""
        self._inside = False
        self._first = True
        self._after_cr = False
        self.mid_event = False
        """True while an event has been returned in part."""

    @property
    def is_between(self) -> bool:
        """True where an event may begin with the next byte: nothing is held, and no mark can stand before it."""
        return not (self._held or self._inside or self._after_cr or self._first)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return whole events, each with its blank line, and what stands between them. About 0.5 us for one event."""
        if self._held or self._inside or self._after_cr or CR in chunk or not chunk.endswith(b"\n\n"):
            return self._feed_lines(chunk)
        blocks = chunk[:-2].split(b"\n\n")
        for block in blocks:
            if not block.startswith(_FIELDS) or block.endswith(b"\n"):
                return self._feed_lines(chunk)
        self._first = False
        return [chunk] if len(blocks) == 1 else [block + b"\n\n" for block in blocks]

    def flush(self) -> bytes:
        """Return what is held of an event that lacks its end."""
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
        for line in chunk.splitlines(keepends=True):
            self._held += line
            self._line_bytes += len(line)
            if line.endswith((b"\n", b"\r")) and self._ends_here():
                cuts.append(self.flush())
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        if len(self._held) > self._limit:
            cuts.append(self.flush())
            self._inside = self.mid_event = True
        return cuts

    def _ends_here(self) -> bool:
        """Take the line that has ended; tell whether an event ends with it, or whether it stands outside of any."""
        begin, self._line_bytes = len(self._held) - self._line_bytes, 0
        content = bytes(self._held[begin:]).rstrip(b"\r\n") if begin >= 0 else b"cut"
        if self._first:
            self._first = False
            content = content.removeprefix(BOM)
        if content and (self._inside or not content.startswith(b":")):
            self._inside = True
            return False
        self._inside = self.mid_event = False
        return True
