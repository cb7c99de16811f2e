"""Lets the event loop have the interpreter while a thread works for long.

Each call of RE2 releases the interpreter's lock for some microseconds. Whoever waits for the lock is woken, finds it
taken again, and begins to wait anew for the interval after which it could demand it: 8 MB of groups of digits, with a
call every 10 microseconds, kept the loop waiting for up to half a second.

Source: CPython 3.11, Python/ceval_gil.h, `take_gil` and `drop_gil`.
"""

import threading
import time
from typing import Final

MAIN: Final = threading.main_thread().ident
"""The thread of the event loop."""
_ALONE_S: Final = 0.002
"""How long a thread may keep the interpreter: what the loop does in a turn releases it some times, too."""
_IDLE_S: Final = 0.05
"""A thread that has not asked for so long was idle, or in one long call."""
_WAY_S: Final = 0.000_05
"""Long enough for the event loop's thread to wake up."""


class _Way(threading.local):
    until = 0.0


_way = _Way()


def give_way() -> None:
    """Sleep for a moment every 2 ms; to be called often by what takes long in a thread. On the event loop: nothing."""
    if threading.get_ident() == MAIN:
        return
    late_s = (now := time.perf_counter()) - _way.until
    if late_s >= 0:
        if late_s < _IDLE_S:
            time.sleep(_WAY_S)
            now = time.perf_counter()
        _way.until = now + _ALONE_S
