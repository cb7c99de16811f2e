"""The segments in order; only the newest is written to.

      oldest                                  active
    [ 0007 ]--[ 0008 ]--[ 0009 ]--[ 0010 ]--[ 0011 ...
     deleted from this end        sealed     appended at this end

Rule of the file: numbers only grow and are never reused; segments are deleted from the old end only, so what is left is
always one contiguous piece of history, and a final is never deleted before its intent. After a failed write the next
one goes to a new file. The newest `KEPT` stay open until they are deleted, so that files that somebody else removes can
be restored. The meaning of frames is unknown here.

Source: write(2) on ENOSPC, EDQUOT, EFBIG.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.journal.segment import CLOSED, Position, Segment
from proxy.journal.sync import Syncer

KEPT = 64
"""As many files as this are kept open: twice of what fits into the default space, and few descriptors."""
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Chain:
    """All segments of one journal. `next_number`: higher than any that was ever used."""

    def __init__(
        self, directory: Path, segment_bytes: int, syncer: Syncer, left: Iterable[Segment], next_number: int
    ) -> None:
        self._directory = directory
        self.segment_bytes = segment_bytes
        self._syncer = syncer
        self._segments = {segment.number: segment for segment in left}
        self._next_number = next_number
        self._active: Segment | None = None
        self.disk_bytes = sum(segment.disk_bytes for segment in self._segments.values())
        """Total size of all files."""
        self.full_disk = False
        """The latest failed write failed for lack of space, not because of a broken disk."""
        for segment in tuple(self._segments.values())[-KEPT:]:
            segment.keep()

    def __iter__(self) -> Iterator[Segment]:
        """Yield a snapshot of all segments, oldest first; other threads may do this too."""
        return iter(tuple(self._segments.values()))

    def get(self, number: int) -> Segment | None:
        """Return the segment of that number, `None` if it is deleted."""
        return self._segments.get(number)

    @property
    def end(self) -> Position:
        """The position after the last frame."""
        return self._active.end if self._active is not None else Position(self._next_number, 0)

    def write(self, frames: bytes) -> Segment | None:
        """Append whole frames to one segment with one call and return it; `None` if the disk does not accept them.

        Written data immediately survives the end of this process.
        """
        segment, size = self._active, len(frames)
        if segment is None or (segment.size and segment.size + size > self.segment_bytes):
            self.seal()
            segment = self._begin()
            if segment is None:
                return None
        try:
            written = os.write(segment.fd, frames)
        except OSError as error:
            self._fail(segment, error.errno in _NO_SPACE)
            return None
        if written < size:
            segment.remove_torn()
            self._fail(segment, True)
            return None
        segment.size += size
        self.disk_bytes += size
        if self._syncer.wants_news:
            self._syncer.written(segment)
        return segment

    def seal(self) -> None:
        """Stop writing to the active segment."""
        if self._active is not None:
            self._syncer.retire(self._active)
            self._active = None

    def is_in_place(self) -> bool:
        """Tell whether the directory, and the file that is written to, are still there."""
        return self._directory.is_dir() if self._active is None else self._active.is_in_place()

    def restore(self) -> None:
        """Put the active segment back where it was. Raises OSError: the disk does not accept it."""
        if self._active is not None:
            self._restore(self._active)

    def restore_sealed(self) -> bool:
        """Put one sealed segment back whose file was removed; `False`: none is missing that is kept open.

        Raises:
            OSError: the disk does not accept it.
        """
        try:
            there = set(os.listdir(self._directory))
        except OSError:  # without a free descriptor, say: nothing is known to be missing
            return False
        for segment in self._segments.values():
            if segment.path.name not in there and segment.kept != CLOSED:
                self._restore(segment)
                return True
        return False

    def let_go(self) -> None:
        """Close all files that are only kept open. Nothing is read afterwards."""
        for segment in self._segments.values():
            segment.let_go()

    def _restore(self, segment: Segment) -> None:
        before = segment.disk_bytes
        segment.restore(is_active=segment is self._active)
        self.disk_bytes += segment.disk_bytes - before

    def is_active(self, segment: Segment) -> bool:
        """Tell whether `segment` may still grow."""
        return segment is self._active

    def oldest_sealed(self) -> Segment | None:
        """Return the segment to be deleted next, if there is one that is no longer written to."""
        oldest = next(iter(self._segments.values()), None)
        return None if oldest is self._active else oldest

    def delete(self, segment: Segment) -> Position:
        """Delete the oldest segment; return the start of the next one."""
        segment.delete()
        del self._segments[segment.number]
        self.disk_bytes -= segment.disk_bytes
        return Position(segment.number + 1, 0)

    def trim(self, segment: Segment) -> None:
        """Free the unused bytes after the end of a sealed segment."""
        before = segment.disk_bytes
        segment.trim()
        self.disk_bytes += segment.disk_bytes - before

    def _fail(self, segment: Segment, full_disk: bool) -> None:
        self.full_disk = full_disk
        # An empty file can be retried; any other is abandoned with its content.
        if segment.size or segment.torn:
            self.seal()

    def _begin(self) -> Segment | None:
        try:
            segment = Segment.create(self._directory, self._next_number)
        except OSError as error:
            self.full_disk = error.errno in _NO_SPACE
            return None
        self._next_number += 1
        kept = [other for other in self._segments.values() if other.kept != CLOSED]
        for other in kept[: max(len(kept) - KEPT + 1, 0)]:
            other.let_go()
        self._segments[segment.number] = self._active = segment
        self._syncer.begin(segment)
        return segment
