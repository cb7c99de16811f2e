"""Shares answers between replicas: looked up if memory has none, stored in the background.

Failure mode: if PostgreSQL is unavailable, slow or full, that is a miss, and counted; if the queue is full, an answer
is stored in this replica only.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from proxy.cache.memory import Form
from proxy.cache.request_key import RequestKey
from proxy.cache.store import AnswerStore, Row
from proxy.errors import DatabaseUnavailable, RecordRejected

_MOST_WAITING: Final = 32
_TRIM_PERIOD_S: Final = 60.0


class Sharing:
    """Access to the table that replicas share."""

    def __init__(self, store: AnswerStore) -> None:
        self.failures = 0
        """Answers that could not be looked up, stored or queued."""
        self._store = store
        self._waiting: asyncio.Queue[tuple[RequestKey, Row]] = asyncio.Queue(_MOST_WAITING)

    async def get(self, key: RequestKey, forms: Sequence[Form]) -> Sequence[Row]:
        """Return answers of other replicas; nothing while PostgreSQL is unavailable."""
        if not self._store.is_up:
            return ()
        try:
            return await self._store.get(key.digest, forms, key.project_id)
        except DatabaseUnavailable:
            self.failures += 1
            return ()

    def offer(self, key: RequestKey, row: Row) -> None:
        """Queue an answer to be shared."""
        try:
            self._waiting.put_nowait((key, row))
        except asyncio.QueueFull:
            self.failures += 1

    async def run(self) -> None:
        """Store queued answers, and keep the table within its limits, until cancelled."""
        loop = asyncio.get_running_loop()
        trim_at = loop.time()
        while True:
            if loop.time() >= trim_at:  # even if more is waiting: a table under constant writes grows most
                trim_at = loop.time() + _TRIM_PERIOD_S
                await self._try(self._store.trim())
            try:
                async with asyncio.timeout_at(trim_at):
                    key, row = await self._waiting.get()
            except TimeoutError:
                continue
            await self._try(self._store.put(key.digest, key.project_id, row))

    async def _try(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (DatabaseUnavailable, RecordRejected):
            self.failures += 1
