"""Keeps the schema at the version of this code for as long as the process lives.

    bring_up, at the start --> check, every LOOK_S --the same or a newer one--> nothing
                                         `--older--> bring_up, or log that `sidegate migrate up` is needed

A migrated schema can become an older one: a backup was restored, or an old standby promoted. Nothing else would reveal
that: an older schema accepts many statements of this code, and stores traces without the sums that later migrations
added. So the version is queried at intervals, because PgBouncer hides that PostgreSQL was replaced.

Failure mode: while PostgreSQL is unavailable, the query is repeated for as long as it takes. A newer schema is
accepted, as it keeps what this version needs; if one cannot be migrated, that is logged and retried while requests are
served.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from proxy.db import migrate
from proxy.db.migrate import MIGRATIONS, DatabaseNewer, MigrationError
from proxy.db.pool import Database
from proxy.errors import DatabaseUnavailable

LOOK_S: Final = 15.0
_RETRY_S = 1.0
_FAILED_PAUSE_S = 5.0
_log = logging.getLogger("sidegate")


class SchemaWatch:
    """`migrates`: this process may change the schema; else a job does, and it is only said that it has to."""

    def __init__(self, database: Database, *, migrates: bool, directory: Path = MIGRATIONS) -> None:
        self._database = database
        self._migrates = migrates
        self._directory = directory
        self._newest: int | None = None
        self._told: int | None = None

    async def bring_up(self) -> None:
        """Apply what is outstanding, if that is ours to do; return once the schema is this one or a newer one."""
        while self._migrates:
            try:
                async with self._database.acquire(patient=True) as connection:
                    applied = await migrate.up(connection, directory=self._directory)
                if applied:
                    _log.info("migrated", extra={"versions": [row.version for row in applied]})
                return
            except DatabaseUnavailable:
                await asyncio.sleep(_RETRY_S)
            except DatabaseNewer as error:
                _log.warning("the schema is newer than this version", extra={"reason": str(error)})
                return
            except MigrationError as error:
                _log.error("the schema cannot be migrated", extra={"reason": str(error)})
                await asyncio.sleep(_FAILED_PAUSE_S)

    async def look(self) -> bool:
        """Return whether the schema was an older one; then it is brought up, or the log says so once."""
        try:
            async with self._database.acquire(patient=True) as connection:
                found = await migrate.version(connection)
        except DatabaseUnavailable:
            return False
        if self._newest is None:
            self._newest = len(await asyncio.to_thread(migrate.load, self._directory))
        if found >= self._newest:
            self._told = None
            return False
        if self._told != found:
            self._told = found
            _log.warning("the schema is older than this version", extra={"found": found, "needed": self._newest})
        await self.bring_up()
        return True
