r"""The standard streams of the process: open from the beginning, harmless at the end.

- A descriptor 0, 1 or 2 that is closed is opened on the null device. Otherwise the first sockets and files would get
  these numbers: what a library writes to standard error would go into them, and libuv aborts when it closes one.
- A letter that the stream's encoding does not have is written as an escape (`\xe4`): a user's name must not end a list.
- A stream whose reader is gone, or whose disk is full, is turned to the null device, as Python would otherwise replace
  the exit code by 120.

Source: POSIX `exec`, "STDIN_FILENO, STDOUT_FILENO, or STDERR_FILENO closed"; Python documentation, "Note on SIGPIPE".
"""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Final, TextIO

_NAMES: Final = ("stdin", "stdout", "stderr")


def fill() -> None:
    """Open what is closed, and let no letter fail."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < len(_NAMES):
        pass
    os.close(descriptor)
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # for the life of the process
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def settle(stream: TextIO) -> None:
    """Write what is buffered; if that fails, let nothing of it fail again."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
