"""A pool, and the store of traces, on a database of its own for each test."""

from collections.abc import AsyncIterator

import pytest

from proxy.config import schema
from proxy.db.pool import Database
from proxy.trace.store import TraceStore

SETTINGS = schema.Database()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(SETTINGS)
    await database.connect(database_url)
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> TraceStore:
    return TraceStore(database, SETTINGS)
