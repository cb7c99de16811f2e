import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from proxy.db import migrate
from proxy.db.migrate import (
    Applied,
    ChecksumMismatch,
    DatabaseNewer,
    MigrationError,
    MigrationFailed,
    MigrationMissing,
    VersionGap,
    down,
    load,
    status,
    up,
)


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three migrations, each of which makes a table."""
    for version, name in ((1, "one"), (2, "two"), (3, "three")):
        add(tmp_path, version, name)
    (tmp_path / "README.md").write_text("not a migration")
    (tmp_path / "notes.sql").write_text("not one either")
    return tmp_path


def add(directory: Path, version: int, name: str) -> None:
    (directory / f"{version:03d}_{name}.sql").write_text(f"CREATE TABLE {name} (id INT);\n")
    (directory / f"{version:03d}_{name}_rollback.sql").write_text(f"DROP TABLE {name};\n")


async def tables(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [row["tablename"] for row in rows if row["tablename"] != "schema_migrations"]


async def states(connection: asyncpg.Connection, directory: Path) -> list[str]:
    return [row.state for row in await status(connection, directory=directory)]


async def test_up_when_empty_then_applies_all_in_order_once(connection: asyncpg.Connection, directory: Path) -> None:
    assert await states(connection, directory) == ["pending"] * 3
    assert await tables(connection) == []
    assert await up(connection, directory=directory) == [Applied(1, "one"), Applied(2, "two"), Applied(3, "three")]
    assert await up(connection, directory=directory) == []
    assert await tables(connection) == ["one", "three", "two"]
    assert await states(connection, directory) == ["applied"] * 3


async def test_up_and_down_when_given_a_target_then_stop_there(connection: asyncpg.Connection, directory: Path) -> None:
    assert await up(connection, 2, directory=directory) == [Applied(1, "one"), Applied(2, "two")]
    assert await states(connection, directory) == ["applied", "applied", "pending"]
    assert await up(connection, 1, directory=directory) == []
    await up(connection, directory=directory)
    assert await down(connection, 1, directory=directory) == [Applied(3, "three"), Applied(2, "two")]
    assert await tables(connection) == ["one"]
    assert await down(connection, 0, directory=directory) == [Applied(1, "one")]
    assert await down(connection, 0, directory=directory) == []


@pytest.mark.parametrize("target", [-1, 4])
async def test_target_when_unknown_then_refused(connection: asyncpg.Connection, directory: Path, target: int) -> None:
    with pytest.raises(MigrationMissing, match="0 to 3"):
        await up(connection, target, directory=directory)
    with pytest.raises(MigrationMissing, match="0 to 3"):
        await down(connection, target, directory=directory)


async def test_up_when_a_script_fails_then_nothing_of_it_stays(connection: asyncpg.Connection, directory: Path) -> None:
    (directory / "002_two.sql").write_text("CREATE TABLE two (id INT); SELECT 1 / 0;")
    with pytest.raises(
        MigrationFailed, match=r"002_two failed, nothing of it stays: division by zero \(SQLSTATE 22012"
    ):
        await up(connection, directory=directory)
    assert await tables(connection) == ["one"]
    add(directory, 2, "two")
    assert [applied.version for applied in await up(connection, directory=directory)] == [2, 3]


async def test_up_when_the_role_may_not_create_tables_then_the_right_it_needs_is_named(
    connection: asyncpg.Connection, directory: Path
) -> None:
    role = f"weak_{uuid.uuid4().hex}"
    await connection.execute(f"CREATE ROLE {role}; SET ROLE {role}")
    try:
        with pytest.raises(MigrationFailed, match=r"\(SQLSTATE 42501\)\. The role needs the right to create"):
            await up(connection, directory=directory)
    finally:
        await connection.execute(f"RESET ROLE; DROP ROLE {role}")


async def test_up_when_a_script_is_interrupted_then_the_error_is_not_the_scripts(
    connection: asyncpg.Connection, directory: Path
) -> None:
    (directory / "001_one.sql").write_text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$;")
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await up(connection, directory=directory)


async def test_up_when_an_applied_file_was_changed_then_refused(
    connection: asyncpg.Connection, directory: Path
) -> None:
    await up(connection, 2, directory=directory)
    (directory / "001_one.sql").write_text("CREATE TABLE other (id INT);")
    for attempt in (up(connection, directory=directory), down(connection, 0, directory=directory)):
        with pytest.raises(ChecksumMismatch, match="001_one was changed"):
            await attempt
    assert await states(connection, directory) == ["changed", "applied", "pending"]
    assert await tables(connection) == ["one", "two"]


async def test_up_when_only_line_ends_differ_then_same_file(connection: asyncpg.Connection, directory: Path) -> None:
    await up(connection, directory=directory)
    (directory / "001_one.sql").write_bytes((directory / "001_one.sql").read_bytes().replace(b"\n", b"\r\n"))
    assert await up(connection, directory=directory) == []


async def test_up_when_database_is_newer_then_refused(connection: asyncpg.Connection, directory: Path) -> None:
    await up(connection, directory=directory)
    for path in directory.glob("003_*"):
        path.unlink()
    with pytest.raises(DatabaseNewer, match="at version 003, this code knows 002"):
        await up(connection, directory=directory)
    assert await states(connection, directory) == ["applied", "applied", "unknown"]


@pytest.mark.parametrize("missing", ["001_one.sql", "002_two.sql"])
async def test_load_when_a_file_is_missing_then_refused(directory: Path, missing: str) -> None:
    (directory / missing).unlink()
    with pytest.raises(VersionGap, match=f"expected {missing[:3]}"):
        load(directory)


def test_load_when_a_number_is_used_twice_then_refused(directory: Path) -> None:
    add(directory, 2, "again")
    with pytest.raises(VersionGap, match="expected 003, found 002"):
        load(directory)


async def test_up_when_the_record_has_a_gap_then_refused(connection: asyncpg.Connection, directory: Path) -> None:
    await up(connection, directory=directory)
    await connection.execute("DELETE FROM schema_migrations WHERE version = 2")
    with pytest.raises(VersionGap, match="no version 002"):
        await up(connection, directory=directory)


async def test_down_when_rollback_is_missing_then_refused(connection: asyncpg.Connection, directory: Path) -> None:
    await up(connection, directory=directory)
    (directory / "003_three_rollback.sql").unlink()
    with pytest.raises(MigrationMissing, match="003_three_rollback"):
        await down(connection, 0, directory=directory)
    assert len(await tables(connection)) == 3


def test_errors_then_are_one_family() -> None:
    kinds = (ChecksumMismatch, VersionGap, MigrationMissing, MigrationFailed, DatabaseNewer)
    assert all(issubclass(kind, MigrationError) for kind in kinds)


async def test_up_when_ten_start_at_once_then_each_is_applied_once(empty_database_url: str) -> None:
    async def start() -> list[Applied]:
        connection = await asyncpg.connect(empty_database_url)
        try:
            return await up(connection)
        finally:
            await connection.close()

    done = await asyncio.gather(*(start() for _ in range(10)))
    assert sorted(applied.version for each in done for applied in each) == [each.version for each in load()]


async def test_up_when_it_reads_the_files_then_not_on_the_event_loop(
    connection: asyncpg.Connection, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, read_text = set[int](), Path.read_text

    def watched(path: Path, *given: str) -> str:
        readers.add(threading.get_ident())
        return read_text(path, *given)

    monkeypatch.setattr(Path, "read_text", watched)
    await up(connection, directory=directory)
    assert readers and threading.get_ident() not in readers


def test_load_when_shipped_then_every_migration_has_a_rollback() -> None:
    assert load() and all(each.rollback for each in load())
    assert migrate.MIGRATIONS.is_dir()
