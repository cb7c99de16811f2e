"""The format of a record on disk, and how records are recovered from a damaged file. No I/O.

    magic F5 'T' 'R' '1' | length u32 | crc32 u32 | seq u64 | kind u8 | trace id 16 bytes | body
                                                    |<------ length bytes of payload ------->|
                                        crc32 covers |<--------- seq and payload ----------->|

All integers are big-endian. The scanner takes bytes split anywhere and yields whole records. Rule of the file: a record
is returned only if its checksum is right, and an invalid frame affects only itself: the search for the next magic
continues one byte after the bad one, not after the length it claims. Bodies are JSON, so UTF-8, in which the byte F5
cannot occur: no client input can look like the beginning of a frame.

Failure mode: bytes that belong to no record are counted. An incomplete frame is waited for; only `finish` counts it as
damage.

Source: RFC 3629 section 3 (bytes that never occur in UTF-8).
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

MAGIC = b"\xf5TR1"
MAX_BODY_BYTES = 64 * 1024 * 1024
_HEAD = struct.Struct(">4sII")
_COVERED = struct.Struct(">QB16s")
_FRAME = struct.Struct(">4sIIQB16s")
FRAME_OVERHEAD = _FRAME.size
_MIN_PAYLOAD = 17
_UNCOVERED = FRAME_OVERHEAD - _MIN_PAYLOAD
_MAX_PAYLOAD = _MIN_PAYLOAD + MAX_BODY_BYTES


class Kind(IntEnum):
    """The kind of a record. The numbers are on disk and never change."""

    INTENT = 1
    """A request is about to be sent to a provider."""
    FINAL = 2
    """The result of a request. Closes the intent of the same trace id."""
    CONTENT = 3
    """Captured bodies; dropped first when space is short."""
    LEASE_KEPT = 4
    """A lease returns what it will not need; requests still run on the rest."""
    LEASE_ENDED = 5
    """No request uses a lease any more. Closes the intent that was written before it was requested."""


# Members as names of the module: read from the class, one takes eight times as long, and a request reads some twenty.
INTENT: Final = Kind.INTENT
FINAL: Final = Kind.FINAL
CONTENT: Final = Kind.CONTENT
LEASES: Final = frozenset({Kind.LEASE_KEPT, Kind.LEASE_ENDED})
CLOSING: Final = frozenset({Kind.FINAL, Kind.LEASE_ENDED})
"""Kinds that close the intent of the same id."""


_KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}


class Record(NamedTuple):
    """One record as read back. `end_offset`: position in the file of the first byte after its frame."""

    kind: Kind
    trace_id: bytes
    body: bytes
    seq: int
    end_offset: int


_new = tuple.__new__
"""Creates a `Record` in a third of the time of its constructor."""


def encode(seq: int, kind: Kind, trace_id: bytes, body: bytes) -> bytes:
    """Return the frame of one record. `trace_id`: 16 bytes. `body`: at most `MAX_BODY_BYTES`.

    Raises:
        ValueError: the trace id or the body has a length that the format cannot hold.
    """
    if len(trace_id) != 16 or len(body) > MAX_BODY_BYTES:
        raise ValueError("a trace id has 16 bytes, a body at most 64 MiB")
    covered = _COVERED.pack(seq, kind, trace_id) + body
    return _HEAD.pack(MAGIC, _MIN_PAYLOAD + len(body), crc32(covered)) + covered


def scan_intact(data: bytes, offset: int, max_records: int) -> tuple[list[Record], int]:
    """Return the finals and contents of the intact frames at the beginning of `data`, and where that run ends.

    It ends before the record that would exceed the limit, and at anything that is not a whole, undamaged frame, which
    is left to a `Scanner`. `data`: begins at `offset` of the file. Costs two thirds of a scan (`bench.journal`).
    """
    records: list[Record] = []
    view, size, at = memoryview(data), len(data), 0
    while at + FRAME_OVERHEAD <= size:
        magic, length, crc, seq, number, trace_id = _FRAME.unpack_from(data, at)
        end = at + _UNCOVERED + length
        kind = _KINDS.get(number)
        if magic != MAGIC or kind is None or not _MIN_PAYLOAD <= length <= _MAX_PAYLOAD or end > size:
            break
        if crc32(view[at + _HEAD.size : end]) != crc:
            break
        if kind is not INTENT:
            if len(records) == max_records:
                break
            records.append(_new(Record, (kind, trace_id, data[at + FRAME_OVERHEAD : end], seq, offset + end)))
        at = end
    return records, offset + at


class Scanner:
    """Turns bytes into records. Holds at most the current frame and the bytes fed last.

    `offset`: position in the file of the first byte that will be fed.
    """

    def __init__(self, offset: int = 0) -> None:
        self.damaged_frames = 0
        """Runs of bytes that belong to no record: at least one lost frame each."""
        self.damaged_bytes = 0
        self.missing_bytes = 0
        """Bytes that the current frame (or its header) still lacks by its own account: the best amount to feed next."""
        self._data = b""
        self._at = 0
        self._base = offset
        self._in_damage = False

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that `data` completes, in file order. Exhaust it before the next call."""
        self._base += self._at
        self._data = self._data[self._at :] + data
        self._at = 0
        return self._scan(closed=False)

    def finish(self) -> Iterator[Record]:
        """Yield what follows an incomplete frame, after the last bytes were fed; the rest is damage."""
        return self._scan(closed=True)

    def _scan(self, *, closed: bool) -> Iterator[Record]:
        self.missing_bytes = 0
        data = self._data
        view = memoryview(data)
        while (start := data.find(MAGIC, self._at)) >= 0:
            self._skip_to(start)
            found = self._judge(view, start)
            if isinstance(found, Record):
                self._at = found.end_offset - self._base
                self._in_damage = False
                yield found
            elif found and not closed:
                self.missing_bytes = found
                return
            else:
                self._skip_to(start + 1)
        # The last bytes may be the beginning of a magic.
        kept = 0 if closed else len(MAGIC) - 1
        self._skip_to(max(self._at, len(data) - kept))

    def _judge(self, view: memoryview, start: int) -> Record | int:
        """Return the record whose frame begins at `start`, or how many bytes it lacks, or 0 if it is damaged."""
        if start + FRAME_OVERHEAD > len(view):
            return start + FRAME_OVERHEAD - len(view)
        _, length, crc, seq, kind, trace_id = _FRAME.unpack_from(view, start)
        if kind not in _KINDS or not _MIN_PAYLOAD <= length <= _MAX_PAYLOAD:
            return 0
        end: int = start + _UNCOVERED + length
        if end > len(view):
            return end - len(view)
        if crc32(view[start + _HEAD.size : end]) != crc:
            return 0
        body = bytes(view[start + FRAME_OVERHEAD : end])
        return Record(_KINDS[kind], trace_id, body, seq, self._base + end)

    def _skip_to(self, at: int) -> None:
        if at == self._at:
            return
        self.damaged_bytes += at - self._at
        self.damaged_frames += not self._in_damage
        self._in_damage = True
        self._at = at
