"""One timer per connection instead of one per chunk.

Rule of the file: moving the deadline later costs two assignments. The armed timer then fires early, sees that the
deadline has moved, and is armed again for the rest. Only a deadline earlier than the armed timer replaces it. So a
stream of ten thousand chunks arms a handful of timers.
"""

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `on_expiry(code)` when the deadline passes. Times are those of `loop.time()`."""

    __slots__ = ("_armed_at", "_at", "_code", "_handle", "_loop", "_on_expiry")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expiry: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_expiry: Callable[[str], None] | None = on_expiry
        self._handle: asyncio.TimerHandle | None = None
        self._armed_at = math.inf
        self._at = math.inf
        self._code = ""

    def set(self, at: float, code: str) -> None:
        """Replace the deadline. `code`: what its expiry means."""
        self._at = at
        self._code = code
        if at < self._armed_at:
            self._arm(at)

    def clear(self) -> None:
        """Remove the deadline; an armed timer expires without effect."""
        self._at = math.inf

    def let_go(self) -> None:
        """Remove deadline, timer and `on_expiry`, whose owner would else wait for the garbage collector. For good."""
        self._on_expiry = None
        self._at = math.inf
        self._armed_at = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_at = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed_at = math.inf
        if self._at <= self._loop.time():
            self._at = math.inf
            if self._on_expiry is not None:
                self._on_expiry(self._code)
        elif self._at < math.inf:
            self._arm(self._at)
