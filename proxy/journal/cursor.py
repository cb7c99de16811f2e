"""The committed position of the journal, in a small file, so that a restart does not replay everything.

Best effort by design: replay is harmless, so the file is overwritten in place and never synced. A cursor that cannot be
read, or whose checksum is wrong, is ignored: then everything that is left is replayed.
"""

import os
import struct
from contextlib import suppress
from zlib import crc32

from proxy.journal.segment import START, Position

_BODY = struct.Struct(">4sQQ")
_CRC = struct.Struct(">I")
_MAGIC = b"\xf5CU1"


class CursorFile:
    """The cursor in the file open as `fd`, which belongs to the caller."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def load(self) -> Position:
        """Return the stored position; the start of the journal if there is no valid one."""
        data = os.pread(self._fd, _BODY.size + _CRC.size, 0)
        if len(data) < _BODY.size + _CRC.size or _CRC.unpack_from(data, _BODY.size)[0] != crc32(data[: _BODY.size]):
            return START
        magic, segment, offset = _BODY.unpack_from(data)
        return Position(segment, offset) if magic == _MAGIC else START

    def store(self, position: Position) -> None:
        """Overwrite the stored position with one write."""
        body = _BODY.pack(_MAGIC, *position)
        # A full or broken disk only costs a longer replay here; writes to the segments report it.
        with suppress(OSError):
            os.pwrite(self._fd, body + _CRC.pack(crc32(body)), 0)
