"""Limits one kind of work to a part of the pool's connections, so that it cannot keep others from theirs.

The management API shares the pool with quotas, keys and the journal. Its queries may take seconds, and anyone with a
key may send hundreds at once, while a request that waits too long for a lease considers PostgreSQL unavailable. So the
API has its own queue in front of the pool's.

Failure mode: `DatabaseUnavailable` if no connection of the part is free in time; everything else as `db.pool`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.db.pool import Database
from proxy.db.transaction import Connection, bounded_transaction
from proxy.errors import DatabaseUnavailable


class PoolShare:
    """At most `connections` of the pool. Implements `pool.Connections`. `wait_s`: longest wait for one to be free."""

    def __init__(self, database: Database, connections: int, wait_s: float) -> None:
        self._database = database
        self._free = asyncio.Semaphore(connections)
        self._wait_s = wait_s

    @asynccontextmanager
    async def acquire(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection as `Database.acquire` does, once one of the part is free."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("Too many requests are waiting for the database.") from None
        try:
            async with self._database.acquire(patient=patient) as connection:
                yield connection
        finally:
            self._free.release()

    @asynccontextmanager
    async def transaction(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction, as `Database.transaction` does."""
        async with self.acquire(patient=patient) as connection, bounded_transaction(connection):
            yield connection
