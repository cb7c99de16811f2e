"""Every asynchronous test of this package runs on both event loops: transports differ in more than speed."""

import asyncio

import pytest
import uvloop

from tests.ingress import wire


def pytest_asyncio_loop_factories():
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["lean", "aiohttp"], autouse=True)
def _kind_of_server(request):
    """Every test that serves runs on both servers."""
    token = wire.KIND.set(request.param)
    yield
    wire.KIND.reset(token)
