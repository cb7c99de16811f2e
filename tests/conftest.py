"""PostgreSQL for tests: one private server per test process, and databases that take some milliseconds each.

Nothing starts before a test asks for `database_url` or `empty_database_url`.
"""

import asyncio
import gc
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import settings

from proxy.config import schema
from proxy.db import migrate
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.pool import Database

T = TypeVar("T")

# A machine under load must not fail a property.
settings.register_profile("sidegate", deadline=None)
settings.load_profile("sidegate")

# A run in the background of a shell ignores SIGINT, and so would every child that is to be ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "128MB",
    "max_connections": "100",
}


MEMORY = Path("/dev/shm")
"""Where files live in memory. A database is 500 of them; the kernel needs a thirteenth of the time for it here."""
_MEMORY_BYTES = 1 << 30


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what modules and cases are, now and in all its later rounds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class Postgres:
    """A private server, and the one thread that starts it: the server ends when that thread does.

    No test waits for a database to be dropped, and hardly one for the next to be copied: both happen meanwhile.
    """

    def __init__(self, data_dir: Path) -> None:
        self._server = EmbeddedPostgres(data_dir, settings=NOT_DURABLE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        self._runner = self._thread.submit(asyncio.Runner).result()
        self._connection: asyncpg.Connection | None = None
        self._spare: dict[str, Future[str]] = {}
        self._dropped: list[Future[None]] = []
        self.url = self.run(self._server.start())

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return self._submit(job).result()

    def close(self) -> None:
        for dropped in self._dropped:
            dropped.result()
        if self._connection is not None:
            self.run(self._connection.close())
        self.run(self._server.stop())
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def create_database(self, template: str = "template1") -> str:
        return self.run(self._create(template))

    def take_database(self, template: str) -> str:
        """Return a fresh copy, and have the next one made meanwhile."""
        spare = self._spare.pop(template, None) or self._submit(self._create(template))
        self._spare[template] = self._submit(self._create(template))
        return spare.result()

    def drop_database(self, url: str) -> None:
        self._dropped.append(self._submit(self._execute(f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)')))

    def _submit(self, job: Coroutine[Any, Any, T]) -> "Future[T]":
        return self._thread.submit(self._runner.run, job)

    async def _create(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        # Without fsync, copying files takes a third of the time that the write-ahead log takes.
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    async def _execute(self, statement: str) -> None:
        if self._connection is None:
            self._connection = await asyncpg.connect(self.url)
        await self._connection.execute(statement)


@pytest.fixture(scope="session")
def open_tmp() -> Iterator[Path]:
    """A temporary directory that other accounts may enter; pytest's own may only be entered by us."""
    path = Path(tempfile.mkdtemp(prefix="sidegate-tests-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def fast_tmp(open_tmp: Path) -> Iterator[Path]:
    """The same where files are cheapest. Programs may not be run from there."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < _MEMORY_BYTES:
        yield open_tmp
        return
    path = Path(tempfile.mkdtemp(prefix="sidegate-tests-", dir=MEMORY))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(fast_tmp: Path) -> Iterator[Postgres]:
    server = Postgres(fast_tmp / f"shared-{os.getpid()}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """Name of a migrated database that the others are copied from."""
    url = postgres.create_database()

    async def prepare() -> None:
        connection = await asyncpg.connect(url)
        try:
            await migrate.up(connection)
        finally:
            await connection.close()

    postgres.run(prepare())
    return urlsplit(url).path[1:]


@pytest.fixture
def database_url(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """DSN of a fresh database with the current schema."""
    url = postgres.take_database(migrated_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of the default size on such a database."""
    database = Database(schema.Database())
    await database.connect(database_url)
    yield database
    await database.close()


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """DSN of a fresh database without any table."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)
