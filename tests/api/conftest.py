from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.config import schema
from proxy.db.pool import Database
from tests.fakes.own_api import Serve, handler, own_api


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    clients = []

    async def start(database: Database, quota: schema.Quota | None = None) -> TestClient[web.BaseRequest, None]:
        client = TestClient(RawTestServer(handler(own_api(database, quota))))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()
