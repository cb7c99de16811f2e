"""Background work: every loop has a name, starts in one place and stops in a defined order.

A loop that raises is logged by exception type and restarted after a pause, so that one failure does not silently stop
the journal writer or the partition keeper.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("sidegate.tasks")
_RESTART_PAUSE_S = 1.0
_CANCEL_AGAIN_S = 0.2


class Background:
    """The running loops of a process, stopped in reverse order of their start."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run `loop` until it returns or `stop` is called; an exception restarts it after a pause."""
        self._tasks.append(asyncio.create_task(_keep_running(name, loop), name=name))

    async def stop(self) -> None:
        """Cancel all loops, last started first, and wait for each.

        Cancels repeatedly: up to Python 3.11, `asyncio.wait_for`, which libraries use, loses a cancellation that
        arrives just when the awaited result does.
        """
        while self._tasks:
            task = self._tasks.pop()
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)


async def _keep_running(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await loop()
        except Exception as error:
            _log.error("background task failed", extra={"task": name, "error": type(error).__name__})
            await asyncio.sleep(_RESTART_PAUSE_S)


async def every(period_s: float, action: Callable[[], Awaitable[None]]) -> None:
    """Call `action` now and then every `period_s` seconds, until cancelled."""
    while True:
        await action()
        await asyncio.sleep(period_s)
