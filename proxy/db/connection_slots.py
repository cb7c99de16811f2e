"""How many connections may be in use at once: the size of the pool, minus those that PostgreSQL has recently refused.

A full server, or a role's CONNECTION LIMIT, refuses a connection while others of this process work. Then one slot is
closed for some seconds, and its caller waits for another one, so that the open connections are shared.

Rule of the file: at least one slot is always open, and a closed one opens by itself.
"""

import asyncio
import logging

_log = logging.getLogger(__name__)


class ConnectionSlots:
    """The slots of one pool. `closed_s`: how long a refusal counts."""

    def __init__(self, number: int, closed_s: float) -> None:
        self._number = number
        self._closed_s = closed_s
        self._free = asyncio.Semaphore(number)
        self._taken = self._closed = 0
        self._is_told = False

    async def take(self, until: float) -> None:
        """Wait for a slot until then (event loop time). Raises TimeoutError."""
        async with asyncio.timeout_at(until):
            await self._free.acquire()
        self._taken += 1

    def give_back(self) -> None:
        """Let the next caller have the slot."""
        self._taken -= 1
        self._free.release()

    def close(self, *, has_connections: bool) -> bool:
        """Close the caller's slot; False, and the caller keeps it, if no other one can lead to a connection.

        `has_connections`: this process has some; further ones may be opening.
        """
        if self._closed + 1 >= self._number or not (has_connections or self._taken > 1):
            return False
        self._taken -= 1
        self._closed += 1
        asyncio.get_running_loop().call_later(self._closed_s, self._open)
        if not self._is_told:
            self._is_told = True
            _log.warning("PostgreSQL grants fewer connections than database.pool_size: those that are open are shared")
        return True

    def _open(self) -> None:
        self._closed -= 1
        self._free.release()
