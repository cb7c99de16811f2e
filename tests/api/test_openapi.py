"""The document is what the server does: every route and no other, and every answer as it says."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import schemathesis
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from proxy.api.openapi import document
from proxy.api.routes import Api, PublicEndpoint
from proxy.auth.keys import NewKey, digest
from proxy.config import schema
from proxy.db.pool import Database
from scripts.generate_api_docs import page
from tests.conftest import Postgres
from tests.fakes.own_api import ADMIN_KEY, handler, own_api, routing, stores

ROOT = Path(__file__).resolve().parents[2]
API = own_api(Database(schema.Database()))
DOCUMENT = document((*API.table, *API.public), "test")
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {(row.path, row.method.lower()): row for row in (*API.table, *API.public)}
    assert set(OPERATIONS) == set(routes)
    operations = [DOCUMENT["paths"][path][method] for path, method in OPERATIONS]
    assert len({operation["operationId"] for operation in operations}) == len(routes)
    for (path, method), operation in zip(OPERATIONS, operations, strict=True):
        row = routes[path, method]
        assert operation.get("x-permission") == row.permission
        assert (operation.get("security") == []) == row.public
        assert operation["summary"] and all("`" not in name for name in operation["tags"])


class Running:
    """The API over a database of its own, in a thread, because what asks it does not know of loops."""

    def __init__(self, database_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready: Future[str] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(database_url),))
        self._thread.start()
        self.url = self._ready.result(30)

    async def _serve(self, database_url: str) -> None:
        database = Database(schema.Database())
        await database.connect(database_url)
        parts = stores(database)
        made = await parts.keys.create(NewKey("test", "alice", "default-project", {}, None), "test")
        assert made is not None
        client = TestClient(RawTestServer(handler(Api(parts, routing(), digest(ADMIN_KEY)))))
        await client.start_server()
        self._ready.set_result(str(client.make_url("")).rstrip("/"))
        await self._end.wait()
        await client.close()
        await database.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def running(postgres: Postgres, migrated_template: str) -> Iterator[Running]:
    url = postgres.create_database(migrated_template)
    server = Running(url)
    yield server
    server.close()
    postgres.drop_database(url)


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda part: part)
def test_answers_are_as_described(path: str, method: str, running: Running) -> None:
    operation = SCHEMA[path][method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=3,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        case.call_and_validate(base_url=running.url, headers=headers, checks=CHECKS)

    ask()


def test_document_alone_is_served_without_a_key(running: Running) -> None:
    assert [row.path for row in API.public] == ["/v1/sidegate/openapi.json"]
    with urllib.request.urlopen(f"{running.url}/v1/sidegate/openapi.json", timeout=10) as answer:
        served = json.loads(answer.read())
    assert {**served, "info": {**served["info"], "version": "test"}} == DOCUMENT


def test_route_that_is_not_described_is_named() -> None:
    with pytest.raises(LookupError, match="GET /v1/x is not described"):
        document([PublicEndpoint("GET", "/v1/x", lambda request: web.Response())], "test")


def test_page_of_the_docs_is_made_of_it() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == page(), "run python -m scripts.generate_api_docs docs/api.md"
