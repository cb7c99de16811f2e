"""Bring the schema to the version of this code, and back.

A migration is a pair of files, `NNN_<what>.sql` and `NNN_<what>_rollback.sql`, numbered from 001 without gaps. Table
`schema_migrations` says which were applied, with a checksum of the file as it was then.

Rule of the file: one migration is one transaction, under a lock that ends with it (no session lock, so it works
through PgBouncer). The state is read after the lock is held: any number of processes may start at once, one of them
migrates and the others find it done.

Failure mode: a `MigrationError` that says what is wrong and what to do; nothing of that migration stays.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import asyncpg

from proxy.db.transaction import Connection, bounded_transaction
from proxy.resources import ROOT

MIGRATIONS = ROOT / "migrations"

_NAME = re.compile(r"(?P<version>\d{3})_(?P<name>[a-z0-9_]+)\.sql")
_LOCK = 0x51DE6A7E  # any number, the same in every version of this code
_DENIED = "42501"
_OWN_TABLESPACE = """
SELECT set_config('default_tablespace', '', true)
FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = d.dattablespace
WHERE d.datname = current_database() AND t.spcname = current_setting('default_tablespace')
"""
"""Means the same as naming the database's own tablespace, which PostgreSQL refuses for partitioned tables."""
_NO_RIGHT = " The role needs the right to create tables in the first schema of its search path (docs/database.md)."
_PASSING_CLASSES = ("08", "40", "53", "57", "58")
_TIMEOUT_S = 3600.0  # waiting for another process, and a migration of a large table


class MigrationError(Exception):
    """The schema cannot be migrated; the message says what to do."""


class ChecksumMismatch(MigrationError):
    """A migration was changed after it had been applied."""


class VersionGap(MigrationError):
    """The numbers of the files, or of the applied migrations, are not 1, 2, 3 and so on."""


class MigrationMissing(MigrationError):
    """A file that is needed is not there: of an applied version, or its rollback."""


class DatabaseNewer(MigrationError):
    """The database was migrated by a newer version of this code."""


class MigrationFailed(MigrationError):
    """A script does not fit this database, for example because one of its tables exists already."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration of this code."""

    version: int
    name: str
    script: str
    rollback: str | None
    checksum: str
    """SHA-256 of the script, the same for every style of line ends."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One migration that has just been applied, or rolled back."""

    version: int
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the status. `applied_at` is `None` for a pending migration."""

    version: int
    name: str
    state: Literal["applied", "pending", "changed", "unknown"]
    """`changed`: the file differs from what was applied. `unknown`: applied, but this code has no such file."""
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Record:
    version: int
    name: str
    checksum: str
    applied_at: datetime


def load(directory: Path = MIGRATIONS) -> list[Migration]:
    """Read the migrations of this code, in order. Not on the event loop: beside a busy thread, each file takes it 5 ms.

    Raises:
        VersionGap: a number is missing or used twice.
    """
    found: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None or match["name"].endswith("_rollback"):
            continue
        back = path.with_name(f"{path.stem}_rollback.sql")
        rollback = back.read_text("utf-8") if back.is_file() else None
        script = path.read_text("utf-8")
        checksum = hashlib.sha256(script.encode()).hexdigest()
        found.append(Migration(int(match["version"]), match["name"], script, rollback, checksum))
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise VersionGap(
                f"migration files must be numbered without gaps: expected {expected:03d}, "
                f"found {migration.version:03d}_{migration.name}. Restore or renumber the files."
            )
    return found


async def up(connection: Connection, target: int | None = None, *, directory: Path = MIGRATIONS) -> list[Applied]:
    """Apply what is outstanding, up to and including version `target`; return what this call applied.

    Raises:
        MigrationError: files and database do not fit together.
    """
    migrations = await asyncio.to_thread(load, directory)
    last = len(migrations) if target is None else target
    _check_target(last, migrations)
    done: list[Applied] = []
    while (applied := await _apply_next(connection, migrations, last)) is not None:
        done.append(applied)
    return done


async def down(connection: Connection, target: int, *, directory: Path = MIGRATIONS) -> list[Applied]:
    """Roll back everything above version `target` (0: all), the newest first; return what was rolled back.

    Raises:
        MigrationError: files and database do not fit together, or a rollback file is missing.
    """
    migrations = load(directory)
    _check_target(target, migrations)
    done: list[Applied] = []
    while (undone := await _roll_back_last(connection, migrations, target)) is not None:
        done.append(undone)
    return done


async def status(connection: Connection, *, directory: Path = MIGRATIONS) -> list[Row]:
    """Compare files and database without changing either; every problem is shown in its row."""
    migrations = {each.version: each for each in load(directory)}
    records = {each.version: each for each in await _records(connection)}
    rows: list[Row] = []
    for version in sorted(migrations.keys() | records.keys()):
        migration, record = migrations.get(version), records.get(version)
        if migration is None:
            rows.append(Row(version, records[version].name, "unknown", records[version].applied_at))
        elif record is None:
            rows.append(Row(version, migration.name, "pending", None))
        else:
            state: Literal["applied", "changed"] = "applied" if record.checksum == migration.checksum else "changed"
            rows.append(Row(version, migration.name, state, record.applied_at))
    return rows


async def version(connection: Connection) -> int:
    """Return the newest version that is applied, 0 for none. Reads no files and waits for nobody."""
    return max((each.version for each in await _records(connection)), default=0)


async def _apply_next(connection: Connection, migrations: Sequence[Migration], last: int) -> Applied | None:
    async with bounded_transaction(connection):
        count = await _lock_and_verify(connection, migrations)
        if count >= last:
            return None
        migration = migrations[count]
        await _run(connection, migration.version, migration.name, migration.script)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )
        return Applied(migration.version, migration.name)


async def _roll_back_last(connection: Connection, migrations: Sequence[Migration], target: int) -> Applied | None:
    async with bounded_transaction(connection):
        count = await _lock_and_verify(connection, migrations)
        if count <= target:
            return None
        migration = migrations[count - 1]
        if migration.rollback is None:
            raise MigrationMissing(
                f"{migration.version:03d}_{migration.name} cannot be rolled back: "
                f"{migration.version:03d}_{migration.name}_rollback.sql is not there. Restore it."
            )
        await _run(connection, migration.version, f"{migration.name}_rollback", migration.rollback)
        await connection.execute("DELETE FROM schema_migrations WHERE version = $1", migration.version)
        return Applied(migration.version, migration.name)


async def _run(connection: Connection, version: int, name: str, script: str) -> None:
    with _explained(f"{version:03d}_{name} failed, nothing of it stays"):
        await connection.execute(script, timeout=_TIMEOUT_S)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what PostgreSQL refuses for good into MigrationFailed."""
    try:
        yield
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state[:2] in _PASSING_CLASSES or state == "55P03":
            raise  # nobody's fault: the pool says what it means
        hint = _NO_RIGHT if state == _DENIED else f" {error.hint}" if error.hint else ""
        raise MigrationFailed(f"{what}: {error.message} (SQLSTATE {state}).{hint}") from None


async def _lock_and_verify(connection: Connection, migrations: Sequence[Migration]) -> int:
    """Wait until no other process migrates, and return how many migrations are applied: always the first ones."""
    await connection.execute(_OWN_TABLESPACE)
    await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=_TIMEOUT_S)
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise MigrationFailed(
            f"the database is encoded in {encoding}, which cannot hold every text: create one with ENCODING 'UTF8'"
        )
    with _explained("the table of migrations cannot be used"):
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
            " checksum TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        records = await _records(connection)
    _verify(records, migrations)
    return len(records)


async def _records(connection: Connection) -> list[_Record]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return []
    rows = await connection.fetch("SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version")
    return [_Record(row["version"], row["name"], row["checksum"], row["applied_at"]) for row in rows]


def _verify(records: Sequence[_Record], migrations: Sequence[Migration]) -> None:
    """Check that the database is at some version of this very history."""
    newest = len(migrations)
    if records and records[-1].version > newest:
        raise DatabaseNewer(
            f"the database is at version {records[-1].version:03d}, this code knows {newest:03d}: "
            f"run the newer Sidegate, or roll back with it first (sidegate migrate down --to {newest})"
        )
    for expected, record in enumerate(records, start=1):
        if record.version != expected:
            raise VersionGap(
                f"schema_migrations has no version {expected:03d} but has {record.version:03d}: "
                "restore the table from a backup; do not edit it"
            )
        migration = migrations[expected - 1]
        if record.checksum != migration.checksum:
            raise ChecksumMismatch(
                f"{record.version:03d}_{record.name} was changed after it had been applied at "
                f"{record.applied_at:%Y-%m-%d}: restore the file and put the change into a new migration"
            )


def _check_target(target: int, migrations: Sequence[Migration]) -> None:
    if not 0 <= target <= len(migrations):
        raise MigrationMissing(f"there is no version {target}: this code knows 0 to {len(migrations)}")
