"""A portion leaves the rest of the pool to others, whatever is asked of it."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from proxy.config import schema
from proxy.db.pool import Database
from proxy.db.pool_share import PoolShare
from proxy.errors import DatabaseUnavailable


@pytest.fixture
async def database(database_url: str):
    database = Database(schema.Database(pool_size=3, acquire_timeout_s=0.5))
    await database.connect(database_url)
    yield database
    await database.close()


async def test_portion_when_all_of_it_is_lent_then_others_still_get_connections(database: Database) -> None:
    portion = PoolShare(database, 2, wait_s=0.05)
    async with AsyncExitStack() as lent:
        for _ in range(2):
            await lent.enter_async_context(portion.acquire())
        refused = await asyncio.gather(*(_once(portion) for _ in range(20)), return_exceptions=True)
        assert {type(error) for error in refused} == {DatabaseUnavailable}
        assert str(refused[0]) == "Too many requests are waiting for the database."
        async with database.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    assert await _once(portion) == 1


async def test_portion_when_a_wait_or_a_block_ends_badly_then_nothing_of_it_is_lost(database: Database) -> None:
    portion = PoolShare(database, 1, wait_s=5)
    async with portion.acquire():
        waiting = asyncio.create_task(_once(portion))
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(ZeroDivisionError):
        async with portion.transaction():
            raise ZeroDivisionError
    assert await _once(portion) == 1


async def test_portion_when_a_transaction_raises_then_it_is_rolled_back(database: Database) -> None:
    portion = PoolShare(database, 1, wait_s=5)
    with pytest.raises(ZeroDivisionError):
        async with portion.transaction() as connection:
            await connection.execute("CREATE TABLE rolled_back ()")
            raise ZeroDivisionError
    async with portion.transaction() as connection:
        assert await connection.fetchval("SELECT to_regclass('rolled_back') IS NULL")


async def _once(portion: PoolShare) -> int:
    async with portion.acquire() as connection:
        found: int = await connection.fetchval("SELECT 1")
    return found
