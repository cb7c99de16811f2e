"""Moves long work from the event loop to threads, where it is cut into small steps (`fair_threads`).

How long a scan takes depends on the text as much as on its size: random letters take 10 to 25 microseconds a byte,
prose a thousandth of that. So a text below a certain size may stay on the loop, whatever it contains; many of them in a
row may not, and `Turns` interrupts them.

Rule of the file: an exchange is only ever worked on in one place. Even a task that is cancelled waits until its thread
has finished, so that no thread changes what is being settled.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from proxy.event_loop.fair_threads import give_way, in_turn
from proxy.process.memory import allow_full_collections, put_off_full_collections

T = TypeVar("T")

LARGE_BODY_BYTES: Final = 65_536
"""Larger bodies are not decoded, edited or encoded on the event loop: the slowest JSON of this size takes 4 ms."""
LARGE_BYTES: Final = 1024
"""Larger texts of a stream are scanned off the loop: at this size, the slowest take 25 ms."""
LARGE_ANSWER_BYTES: Final = 2048
"""The same for complete texts, which take 20 ms at worst. Most answers are smaller, and using a thread costs 0.1 ms."""
MODERATE_ANSWER_BYTES: Final = 16_384
"""Up to this size, most clean answers are recognised as clean within 0.1 ms, which needs no thread."""
_LARGE_JOINED_BYTES: Final = 1 << 20
"""More bytes than that `bytes.join` copies without holding the interpreter (CPython, Objects/stringlib/join.h)."""
_TURN_S: Final = 0.004
_MOST_THREADS: Final = 32
"""Enough that a short text finds a free thread; with more, the bodies in them could exceed the memory."""


class _Threads:
    """Threads of their own, so that neither the writer of traces nor a reader of files waits behind large texts."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_THREADS, "off-loop")
        self._lock = threading.Lock()
        self._busy = self._most_busy = 0

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin the work in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._done, work)

    def _done(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._busy += 1
            is_last = self._busy > self._most_busy
            self._most_busy = max(self._busy, self._most_busy)
        try:
            if is_last:
                with suppress(RuntimeError):  # the process ends
                    self._pool.submit(_nothing)  # starts the next thread here: starting one would block the event loop
            return in_turn(work)
        finally:
            with self._lock:
                self._busy -= 1


def _nothing() -> None:
    pass


_threads = _Threads()


def begin_off_loop(work: Callable[[], T]) -> asyncio.Future[T]:
    """Start work in a thread; nobody has to wait for the result."""
    return _threads.do(work)


async def off_loop(work: Callable[[], T]) -> T:
    """Return the result of `work`, done in a thread. A cancellation waits for its end."""
    done = begin_off_loop(work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue
        if not done.cancelled():
            done.exception()  # marks it as retrieved: nobody else will
        raise


async def joined(pieces: list[bytes]) -> bytes:
    """Return all bytes of `pieces`, and empty it; in a thread if they are many: 8 MB take 6 ms, and as long to free."""
    if len(pieces) == 1:
        return pieces[0]
    if sum(map(len, pieces)) <= _LARGE_JOINED_BYTES:
        return b"".join(pieces)
    return await off_loop(partial(_joined, pieces))


def _joined(pieces: list[bytes]) -> bytes:
    data = b"".join(pieces)
    while pieces:
        give_way()
        del pieces[-1]
    return data


async def decoded_off_loop(work: Callable[[], T]) -> T:
    """Do the same as `off_loop` for work on a large JSON document, which may have millions of elements."""
    put_off_full_collections()
    try:
        return await off_loop(work)
    finally:
        allow_full_collections()


class Turns:
    """Measures how long one task has worked on the event loop since others had a turn. Waiting is not counted."""

    __slots__ = ("_left", "_until")

    def __init__(self) -> None:
        self._left = _TURN_S
        self._until = 0.0

    def begin(self) -> None:
        """Begin or continue to measure."""
        self._until = time.perf_counter() + self._left

    def end(self) -> None:
        """Stop measuring, because the task waits now."""
        self._left = self._until - time.perf_counter()

    @property
    def is_over(self) -> bool:
        """True once it is others' turn. Call `begin` before."""
        return time.perf_counter() > self._until

    async def give(self) -> None:
        """Let others have their turn, then go on."""
        await asyncio.sleep(0)
        self._until = time.perf_counter() + _TURN_S
