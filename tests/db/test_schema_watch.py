from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.config import schema
from proxy.db import migrate
from proxy.db.pool import Database
from proxy.db.schema_watch import SchemaWatch


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(schema.Database(pool_size=2))
    await database.connect(empty_database_url)
    yield database
    await database.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three migrations of a table each."""
    for number, name in enumerate(("one", "two", "three"), start=1):
        (tmp_path / f"00{number}_{name}.sql").write_text(f"CREATE TABLE {name} ()")
        (tmp_path / f"00{number}_{name}_rollback.sql").write_text(f"DROP TABLE {name}")
    return tmp_path


async def put_back(database: Database, directory: Path, version: int) -> None:
    async with database.acquire() as connection:
        await migrate.down(connection, version, directory=directory)


async def version(database: Database) -> int:
    async with database.acquire() as connection:
        return await migrate.version(connection)


async def test_schema_when_an_older_copy_took_over_then_brought_up(
    database: Database, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = SchemaWatch(database, migrates=True, directory=directory)
    await watch.bring_up()
    assert (await version(database), await watch.look()) == (3, False)
    await put_back(database, directory, 1)
    assert (await watch.look(), await version(database), await watch.look()) == (True, 3, False)
    assert caplog.text.count("older than this version") == 1


async def test_schema_when_a_job_migrates_then_only_told_once(
    database: Database, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await SchemaWatch(database, migrates=True, directory=directory).bring_up()
    await put_back(database, directory, 2)
    watch = SchemaWatch(database, migrates=False, directory=directory)
    await watch.bring_up()
    assert [await watch.look(), await watch.look(), await version(database)] == [True, True, 2]
    assert caplog.text.count("older than this version") == 1


async def test_schema_when_it_is_newer_then_told_and_left(
    database: Database, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await SchemaWatch(database, migrates=True, directory=directory).bring_up()
    (directory / "003_three.sql").unlink()
    watch = SchemaWatch(database, migrates=True, directory=directory)
    await watch.bring_up()
    assert (await watch.look(), await version(database)) == (False, 3)
    assert "newer than this version" in caplog.text


async def test_look_when_postgres_is_away_then_says_nothing(directory: Path) -> None:
    assert not await SchemaWatch(Database(schema.Database()), migrates=True, directory=directory).look()
