"""Notices that files changed, by looking at them: works on every file system, and for every way in which files change.

A file is followed to where links lead, so a change is also seen where a directory is exchanged by its link, as
Kubernetes does it (`..data`). It counts once two looks in a row have seen the same: before, somebody may still write.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file."""


def stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Look at files; `None` for one that cannot be looked at. May block as long as the file system does."""
    found: dict[Path, Stamp | None] = {}
    for file in files:
        found[file] = None
        with suppress(OSError):
            state = os.stat(file)
            found[file] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    return found


class Watch:
    """What was read, and what was seen since."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._read = self._seen = stamps(files)

    @property
    def files(self) -> tuple[Path, ...]:
        """What is looked at."""
        return tuple(self._read)

    def has_changed(self) -> bool:
        """Look; return whether there is something new, and no longer changing."""
        before, self._seen = self._seen, stamps(self._read)
        return self._seen == before and self._seen != self._read

    def note_read(self, files: Iterable[Path], before: Mapping[Path, Stamp | None]) -> None:
        """Follow `files` from now on. `before`: how they were before they were read.

        One that was not looked at before counts as changed: nobody knows whether it still is as it was read.
        """
        self._read = {file: before.get(file) for file in files}
