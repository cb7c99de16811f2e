"""Keeps what takes long off the event loop: it is done in a thread, and between small steps others get their turn.

How long a scan takes depends on the text as much as on its size: random letters take 10 to 25 microseconds a byte,
prose a thousandth of that. So a small text may stay on the loop, whatever it is; many of them in succession may not.

Rule of the file: an exchange is only ever worked on in one place. What is done apart is waited for, by a task that is
cancelled, too, so that no thread changes what is being settled.

Source: CPython 3.11, Python/ceval_gil.h, `take_gil` and `drop_gil`.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from proxy.memory import allow_full_collections, put_off_full_collections

T = TypeVar("T")

LARGE_BODY_BYTES: Final = 65_536
"""What is larger is not decoded, edited or encoded on the event loop: the slowest JSON of this size takes 4 ms."""
LARGE_BYTES: Final = 1024
"""What is larger is scanned apart, if the scanner has to follow a stream: 25 ms at worst."""
LARGE_ANSWER_BYTES: Final = 2048
"""The same for complete texts: 20 ms at worst. Most answers are smaller, and a thread takes 0.1 ms."""
MODERATE_ANSWER_BYTES: Final = 16_384
"""Up to this size, a clean answer mostly is known to be clean within a tenth of a millisecond, without a thread."""
MAIN: Final = threading.main_thread().ident
"""The thread of the event loop."""
_TURN_S: Final = 0.004
_ALONE_S: Final = 0.002
"""How long a thread may keep the interpreter: what the loop does in a turn releases it some times, too."""
_IDLE_S: Final = 0.05
"""A thread that has not asked for so long was idle, or in one long call."""
_WAY_S: Final = 0.000_05
"""Long enough for the event loop's thread to wake up."""


class _Way(threading.local):
    until = 0.0


_way = _Way()


async def apart(work: Callable[[], T]) -> T:
    """Return the result of `work`, done in a thread. A cancellation waits for its end."""
    done = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue
        if not done.cancelled():
            done.exception()  # it was seen: nobody else asks for it
        raise


async def decoded_apart(work: Callable[[], T]) -> T:
    """Do the same as `apart` for work on a large JSON document, which may have millions of elements."""
    put_off_full_collections()
    try:
        return await apart(work)
    finally:
        allow_full_collections()


def give_way() -> None:
    """Let the event loop run, every few milliseconds; to be called often by what takes long in a thread.

    Each call of RE2 releases the interpreter's lock for some microseconds. Whoever waits for the lock is woken, finds
    it taken again, and begins to wait anew for the interval after which it could demand it: 8 MB of groups of digits,
    with a call every 10 microseconds, kept the loop waiting for up to half a second.
    """
    if threading.get_ident() == MAIN:
        return
    late_s = (now := time.perf_counter()) - _way.until
    if late_s >= 0:
        if late_s < _IDLE_S:
            time.sleep(_WAY_S)
            now = time.perf_counter()
        _way.until = now + _ALONE_S


class Turns:
    """How long one task has worked on the event loop without giving others their turn; what it waits is not counted."""

    __slots__ = ("_left", "_until")

    def __init__(self) -> None:
        self._left = _TURN_S
        self._until = 0.0

    def begin(self) -> None:
        """Go on with the work."""
        self._until = time.perf_counter() + self._left

    def end(self) -> None:
        """Interrupt it."""
        self._left = self._until - time.perf_counter()

    @property
    def is_over(self) -> bool:
        """True once it is others' turn. Call `begin` before."""
        return time.perf_counter() > self._until

    async def give(self) -> None:
        """Let others have their turn, then go on."""
        await asyncio.sleep(0)
        self._until = time.perf_counter() + _TURN_S
