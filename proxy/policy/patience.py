"""Limits how long one scan may hold the event loop: a scan that takes longer is abandoned and repeated in a thread.

Clean text takes 2.5 microseconds per KB, but for a text made of, say, beginnings of keys, RE2 builds a state for nearly
every byte: up to ten microseconds each. The size of a text does not tell the two apart.

Failure mode: on a busy machine any text takes longer, and then clean ones are scanned in a thread as well.
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
