"""PostgreSQL for tests: one private server per test process, and databases that take some milliseconds each.

Nothing starts before a test asks for `database_url` or `empty_database_url`.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import settings

from proxy.db import migrate
from proxy.db.embedded import EmbeddedPostgres

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
    "max_connections": "100",
}


def kernel_copies(directory: Path) -> bool:
    """Tell whether the kernel copies files here by itself. A database is 500 small ones: a third of the CPU then."""
    with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
        source.write(b"x")
        source.flush()
        try:
            return os.copy_file_range(source.fileno(), target.fileno(), 1, 0) == 1
        except (OSError, AttributeError):
            return False


class Postgres:
    """A private server, and the one thread that starts it: the server ends when that thread does."""

    def __init__(self, data_dir: Path) -> None:
        settings = NOT_DURABLE | {"file_copy_method": "clone" if kernel_copies(data_dir.parent) else "copy"}
        self._server = EmbeddedPostgres(data_dir, settings=settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="postgres")
        self.url = self.run(self._server.start())

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(asyncio.run, job).result()

    def close(self) -> None:
        self.run(self._server.stop())
        self._thread.shutdown()

    def create_database(self, template: str = "template1") -> str:
        name = f"test_{uuid.uuid4().hex}"
        # Without fsync, copying files takes a third of the time that the write-ahead log takes.
        self.run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'))
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def drop_database(self, url: str) -> None:
        self.run(self._execute(f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)'))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def open_tmp() -> Iterator[Path]:
    """A temporary directory that other accounts may enter; pytest's own may only be entered by us."""
    path = Path(tempfile.mkdtemp(prefix="sidegate-tests-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(open_tmp: Path) -> Iterator[Postgres]:
    server = Postgres(open_tmp / f"shared-{os.getpid()}")
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
    url = postgres.create_database(migrated_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """DSN of a fresh database without any table."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)
