"""How a command fails: one line for people and an exit code for scripts."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. 78 is EX_CONFIG of sysexits.h, so that a supervisor can tell a mistake from a crash."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 78
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command failed. The message is one line, safe to show, and says what to do."""
