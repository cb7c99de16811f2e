"""One file of the journal: appended to by one process, read by any thread of it, deleted as a whole.

Rule of the file: `size` counts whole frames only, so anything after it is invisible to readers of this process. A
partial write leaves `size` unchanged; the torn bytes are removed, and if even that fails the segment is `torn` and must
not be written again (a scanner of a later process skips such bytes). A segment that is kept open stays readable when
somebody removes its file, and can be restored.

Source: open(2) O_APPEND; write(2) on short counts.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

_NAME = re.compile(r"^(\d{16})\.journal$")
_COPIED_BYTES = 1 << 20
CLOSED = -1


class Position(NamedTuple):
    """A position in the journal: segment number and byte offset. Compares in journal order."""

    segment: int
    offset: int


START = Position(0, 0)


class Segment:
    """One segment and its state. Counters are maintained by the journal."""

    __slots__ = (
        "_kept_lock",
        "dead_bytes",
        "fd",
        "finals_until",
        "kept",
        "number",
        "open_intents",
        "own_finals_until",
        "path",
        "pending",
        "recovered",
        "size",
        "sync_failed",
        "synced",
        "torn",
    )

    def __init__(self, number: int, path: Path, size: int, fd: int) -> None:
        self.number = number
        self.path = path
        self.size = size
        self.dead_bytes = 0
        """Bytes of the file after `size`."""
        self.fd = fd
        """Open for appending; `CLOSED` once nothing will be written or synced any more."""
        self.kept = CLOSED
        """Open for reading, even if the file is removed, until the segment is deleted here; `CLOSED` if it is not."""
        self._kept_lock = Lock()
        self.synced = size
        """Bytes known to survive a power loss. Those of an earlier process are assumed to."""
        self.recovered = fd == CLOSED
        """Left by an earlier process: its damage was counted when it was found."""
        self.sync_failed = False
        self.torn = False
        self.pending = 0
        """Uncommitted finals and contents in this file."""
        self.open_intents = 0
        """Intents in this file whose final is not written yet."""
        self.finals_until = START
        """End of the last final in another file that belongs to an intent of this one."""
        self.own_finals_until = 0
        """End of the last final in this file for one of its own intents; counted in `pending`, too."""

    @classmethod
    def create(cls, directory: Path, number: int) -> "Segment":
        """Create an empty file, readable by its owner only.

        Raises:
            OSError: the directory does not accept another file.
        """
        path = directory / f"{number:016d}.journal"
        segment = cls(number, path, 0, os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600))
        with suppress(OSError):
            segment.kept = os.dup(segment.fd)
        return segment

    @property
    def end(self) -> Position:
        """The position after the last whole frame."""
        return Position(self.number, self.size)

    @property
    def disk_bytes(self) -> int:
        """Size of the whole file."""
        return self.size + self.dead_bytes

    def cut(self, size: int) -> None:
        """Hide what follows `size`; the file keeps it until `trim`."""
        self.dead_bytes += self.size - size
        self.size = size

    def trim(self) -> None:
        """Free the bytes after `size`. They are unused, so a failure costs space, not records."""
        with suppress(OSError):
            os.truncate(self.path, self.size)
            self.dead_bytes = 0

    def remove_torn(self) -> None:
        """Remove what a partial write left after `size`; if that fails the segment is `torn`."""
        try:
            os.ftruncate(self.fd, self.size)
        except OSError:
            self.torn = True

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to the file that is open; false once somebody has removed that."""
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        opened = os.fstat(self.fd)
        return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)

    def keep(self) -> None:
        """Keep a file of an earlier process open too. Without a free descriptor, it is read by its path."""
        with suppress(OSError):
            self.kept = os.open(self.path, os.O_RDONLY)

    def let_go(self) -> None:
        """Close what `keep` has opened."""
        with self._kept_lock:
            kept, self.kept = self.kept, CLOSED
        if kept != CLOSED:
            os.close(kept)

    def open(self) -> int:
        """Return a new descriptor for reading; on any thread.

        Raises:
            OSError: the file cannot be opened, or was removed and is not kept open.
        """
        with self._kept_lock:
            return os.open(self.path, os.O_RDONLY) if self.kept == CLOSED else os.dup(self.kept)

    def restore(self, *, is_active: bool) -> None:
        """Write the file again from the open one, which stays readable although it was removed, and use the copy.

        `is_active`: it is written to, and nobody else closes `fd`.

        Raises:
            OSError: the directory does not accept it; the open file is still in use.
        """
        source = self.fd if is_active else self.kept
        temporary = self.path.with_suffix(".restored")
        fd = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            at = 0
            while at < self.size and (data := os.pread(source, min(_COPIED_BYTES, self.size - at), at)):
                at += os.write(fd, data)
            os.fsync(fd)
            temporary.replace(self.path)
            self.dead_bytes = 0
            if self.kept != CLOSED:
                os.dup2(fd, self.kept, inheritable=False)
            if is_active:
                os.dup2(fd, self.fd, inheritable=False)  # at once: another thread may be syncing it
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the descriptor; nothing can be written or synced any more."""
        fd, self.fd = self.fd, CLOSED
        os.close(fd)

    def delete(self) -> None:
        """Remove the file. If that fails, the next start finds it and recognises its records as old."""
        self.let_go()
        with suppress(OSError):
            self.path.unlink()


def find_segments(directory: Path) -> Iterator[Segment]:
    """Yield the segments of earlier processes, oldest first, closed for writing. Other files are ignored."""
    for path in sorted(directory.iterdir()):
        match = _NAME.match(path.name)
        if match:
            yield Segment(int(match[1]), path, path.stat().st_size, CLOSED)
