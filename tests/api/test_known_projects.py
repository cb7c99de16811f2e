"""A misspelt project is answered with the one that was meant, to those who may know of it."""

import threading

import asyncpg
import pytest

from proxy.api import known_projects
from proxy.api.caller import Caller
from proxy.api.known_projects import missing_project
from proxy.auth.keys import KeyStore, NewKey
from proxy.config import names
from proxy.db.pool import Database
from proxy.tenants.store import TenantStore
from tests.api.test_quotas import DEFAULTS, _post
from tests.fakes.own_api import Serve

PROJECTS = "INSERT INTO projects (id, organization_id, name) VALUES ('shop', 'default-org', 's')"


@pytest.fixture
async def with_shop(database: Database) -> Database:
    async with database.transaction() as connection:
        await connection.execute(PROJECTS)
    return database


async def test_project_that_is_missing_is_told_with_the_nearest_one_to_the_operator_alone(with_shop: Database) -> None:
    store, keys = TenantStore(with_shop), KeyStore(with_shop)
    operator = Caller(frozenset())
    told = await missing_project(store, operator, "shpo", " Make it.")
    assert (told.http_status, told.code, told.param) == (404, "project_not_found", "projectId")
    assert told.message == "There is no project shpo; did you mean shop? Make it."
    assert (await missing_project(store, operator, "elsewhere")).message == "There is no project elsewhere."
    made = await keys.create(NewKey("test", "ann", "shop", {}, None), "test")
    assert made is not None
    of_key = Caller(frozenset(), (await keys.find([made[0]]))[made[0]])
    assert "shop" not in (await missing_project(store, of_key, "shpo")).message


async def test_project_that_is_missing_is_looked_for_beside_the_event_loop_and_only_near(
    with_shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def nearest(asked: str, known: list[str], most: int) -> str | None:
        threads.append(threading.current_thread())
        return names.nearest(asked, known, most)

    monkeypatch.setattr(known_projects, "nearest", nearest)
    async with with_shop.transaction() as connection:
        await connection.execute(PROJECTS.replace("'shop'", "'0a1b2c3d-0000-4000'"))
    store, operator = TenantStore(with_shop), Caller(frozenset())
    assert "0a1b2c3d-0000-4000" in (await missing_project(store, operator, "0a1b2c3d-0000-4777")).message
    assert "did you mean" not in (await missing_project(store, operator, "0a1b2c3d-7777-4000")).message
    assert len(threads) == 2 and threading.main_thread() not in threads


async def test_limit_of_a_project_that_is_missing_is_refused_only_if_the_caller_wants_that(
    with_shop: Database, serve: Serve, database_url: str
) -> None:
    client = await serve(with_shop, DEFAULTS)
    limit = {"userId": "alice", "projectId": "shpo", "maxTokensDaily": 5}
    refused = (await _post(client, "update", limit | {"createProject": False}, 404))["error"]
    assert refused["code"] == "project_not_found"
    assert "did you mean shop?" in refused["message"] and "--create-project" in refused["message"]
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM projects WHERE id = 'shpo'") == 0
    await connection.close()
    for known in ("shop", "default-project"):
        await _post(client, "update", limit | {"projectId": known, "createProject": False})
    await _post(client, "update", limit | {"createProject": 1}, 400)
    await _post(client, "update", limit)
    await _post(client, "update", limit | {"createProject": False})
