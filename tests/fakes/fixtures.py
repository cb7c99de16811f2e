"""Fixtures of the black-box tests: one provider and one proxy for a whole session, and more proxies on request.

A `conftest.py` imports what it needs from here. `case` names a test's own requests at the provider; `launch` starts a
proxy with other settings and ends it with the test.
"""

import itertools
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Postgres
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.wire import Address

Launch = Callable[..., Sidegate]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    running = Provider().start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def session_database_url(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """One migrated database for all proxies of the session, as sidecars share one."""
    url = postgres.create_database(migrated_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def sidegate(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    """The proxy with its default settings. It is weighed."""
    directory = tmp_path_factory.mktemp("sidegate")
    running = Sidegate(directory, provider.base_url, session_database_url, by_script=True)
    yield running.start().reach_database()
    running.stop()


@pytest.fixture
def launch(provider: Provider, session_database_url: str, tmp_path: Path) -> Iterator[Launch]:
    """Start proxies with settings such as `SIDEGATE__TIMEOUTS__GAP_S="0.5"`; they end with the test."""
    running: list[Sidegate] = []

    def start(
        upstream: str | None = None,
        database: str | None = session_database_url,
        *,
        by_script: bool = False,
        **settings: str,
    ) -> Sidegate:
        directory = tmp_path / f"proxy-{len(running)}"
        directory.mkdir()
        running.append(Sidegate(directory, upstream or provider.base_url, database, settings, by_script=by_script))
        proxy = running[-1].start()
        return proxy.reach_database() if database == session_database_url else proxy

    yield start
    for one in running:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> str:
    """A name for this test's requests that no other test has."""
    return re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60] + f"-{next(_numbers)}"


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture(scope="module")
def black_hole() -> Iterator[Address]:
    """An address whose accept queue is full: connecting to it never ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: Address = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
        for filler in fillers:
            filler.close()
