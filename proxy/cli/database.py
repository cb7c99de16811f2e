"""The database for commands that work on it without a running proxy.

It is the configured one, or else the private PostgreSQL below the data directory, which is started for the command; no
running proxy may be using that one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.cli.failure import CommandFailed
from proxy.config.load import Loaded
from proxy.config.schema import Config
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import EmbeddedPostgresError
from proxy.db.pool import Database
from proxy.errors import DatabaseUnavailable


def with_database(loaded: Loaded, act: Callable[[Database, Config], Awaitable[None]]) -> None:
    """Connect, run `act`, disconnect. Raises CommandFailed if that is not possible."""
    logging.getLogger("proxy.db.health").addHandler(logging.NullHandler())  # the exception reports an outage, once
    try:
        asyncio.run(_run(loaded, act))
    except EmbeddedPostgresError as error:
        raise CommandFailed(str(error)) from None
    except DatabaseUnavailable as error:
        raise CommandFailed(f"{error} Its address is `database.url`, or DATABASE_URL in the environment.") from None


async def _run(loaded: Loaded, act: Callable[[Database, Config], Awaitable[None]]) -> None:
    database = Database(loaded.config.database)
    async with _dsn(loaded) as dsn:
        try:
            await database.connect(dsn)
        except ValueError as error:
            raise CommandFailed(f"database.url cannot be used: {error}") from None
        try:
            await act(database, loaded.config)
        finally:
            await database.close()


@asynccontextmanager
async def _dsn(loaded: Loaded) -> AsyncIterator[str | None]:
    """Yield `None` for the configured database, else the DSN of the private one, which runs within this context."""
    if loaded.config.database.url is not None:
        yield None
        return
    private = EmbeddedPostgres(Path(loaded.config.data_dir))
    try:
        yield await private.start()
    finally:
        await private.stop()
