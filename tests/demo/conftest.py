"""One demo upstream per test, and a client for its raw answers."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.demo import DemoUpstream


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    upstream = DemoUpstream()
    yield await upstream.start()
    await upstream.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
