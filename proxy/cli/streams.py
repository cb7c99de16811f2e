r"""Prepares the standard streams of the process, so that none of them can break a command.

- A descriptor 0, 1 or 2 that is closed is opened on the null device. Otherwise the first sockets and files would get
  these numbers, libraries that write to standard error would write into them, and libuv aborts when it closes one.
- A character that the stream's encoding does not have is written as an escape (`\xe4`), so that a user's name cannot
  end a list with an error.
- A stream whose reader is gone, or whose disk is full, is redirected to the null device; otherwise Python would replace
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
