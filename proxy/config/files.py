"""Opens files that the configuration names: the configuration itself, prices, layers, rules, secrets, certificates.

Rule of the file: only regular files are read, with a bound. A named pipe without a writer would stop the start for
good, a device may never end, and either would differ at every look for changes.

Source: open(2) O_NONBLOCK, fifo(7).
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_KINDS: Final = {
    stat.S_IFIFO: "it is a named pipe, not a regular file",
    stat.S_IFCHR: "it is a device, not a regular file",
    stat.S_IFBLK: "it is a device, not a regular file",
    stat.S_IFDIR: os.strerror(errno.EISDIR),
}


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file; one byte more than `most_bytes` if it is larger.

    Raises:
        OSError: it cannot be read or is something else; `strerror` says what.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor))
        return file.read(most_bytes + 1)


def check_regular(path: Path) -> None:
    """Check a file that a library is going to open. Raises as `read_regular`."""
    _check(path, path.stat())


def _check(path: Path, state: os.stat_result) -> None:
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, _KINDS.get(kind, "it is not a regular file"), str(path))
