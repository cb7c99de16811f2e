"""Bounds how long one scan keeps the event loop: a text that takes longer is given up, to be scanned in a thread.

Clean text takes 2.5 microseconds per KB, but RE2 builds a state for nearly every byte of a text that is made for it,
such as beginnings of keys: up to ten microseconds per byte. No limit on the size tells one from the other.

Failure mode: a busy machine takes longer for any text, and then clean ones are scanned in a thread as well.
"""

import time
from typing import Final

USUAL_S: Final = 0.003
"""16 KB of clean text take 0.1 ms."""


class TooSlow(Exception):
    """The scan has taken too long for the event loop. Nothing is wrong with the text."""


class Patience:
    """The time of one scan, from now on."""

    __slots__ = ("_until",)

    def __init__(self, seconds: float) -> None:
        self._until = time.perf_counter() + seconds

    def check(self) -> None:
        """Raise TooSlow once the time is over."""
        if time.perf_counter() > self._until:
            raise TooSlow
