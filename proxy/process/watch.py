"""Detects changed files by polling: works on every file system and for every way to change a file.

Symbolic links are followed, so a directory that is swapped by its link, as Kubernetes does (`..data`), is a change too.
A change counts once two polls in a row saw the same state: until then, a writer may not be done.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

Stamp = tuple[int, int, int, int]
"""Device, inode, size and modification time of a file."""


def stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return the stamps of files; `None` for one that cannot be read. May block as long as the file system does."""
    found: dict[Path, Stamp | None] = {}
    for file in files:
        found[file] = None
        with suppress(OSError):
            state = os.stat(file)
            found[file] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    return found


class Watch:
    """The state of files when they were read, and since."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._read = self._seen = stamps(files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The watched files."""
        return tuple(self._read)

    def has_changed(self) -> bool:
        """Poll; return whether there is a change that is complete."""
        before, self._seen = self._seen, stamps(self._read)
        return self._seen == before and self._seen != self._read

    def note_read(self, files: Iterable[Path], before: Mapping[Path, Stamp | None]) -> None:
        """Watch `files` from now on. `before`: their stamps from before they were read.

        A file that has no stamp there counts as changed, as it may have been changed since it was read.
        """
        self._read = {file: before.get(file) for file in files}
