"""Kept answers and 304 as clients of the API see them, over a real database that changes behind its back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import orjson
import pytest
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.api.response_cache import ResponseCache
from proxy.api.routes import Api
from proxy.auth.keys import NewKey, digest
from proxy.config import schema
from proxy.db.pool import Database
from proxy.trace.store import TraceStore
from tests.analytics.history import Call, Request
from tests.fakes.own_api import ADMIN_KEY, handler, routing, stores

AT = datetime.now(UTC).replace(microsecond=0)
STATUS = "/v1/quota/status?userId=alice&projectId=shop"


@dataclass
class Served:
    database: Database
    client: TestClient
    kept: ResponseCache
    commits: list[None] = field(default_factory=list)
    """What the writer counts."""
    keys: dict[str, str] = field(default_factory=dict)

    async def ask(self, path: str, who: str = ADMIN_KEY, method: str = "GET", body=None, **headers: str):
        headers = {"Authorization": f"Bearer {self.keys.get(who, who)}"} | headers
        async with self.client.request(method, path, json=body, headers=headers) as response:
            text = await response.read()
            return response.status, response.headers, text

    async def store(self, number: int, project: str) -> str:
        """Store a trace behind the back of what is kept; return its id."""
        request = Request(AT, project, "alice", "chat", "ok", False, 1000, [Call(None, "m", False, 1, 1, 1, 1)])
        request.id = f"{int(AT.timestamp() * 1000):012x}{0x7000800000000000_0000 + number:020x}"
        request.id = "-".join(request.id[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
        record = request.record()
        body = orjson.dumps(orjson.loads(record.body) | {"reasoning_tokens": 0, "usage_source": "provider"})
        async with self.database.transaction() as connection:
            await TraceStore(self.database, schema.Database()).apply(connection, [record._replace(body=body)])
        return request.id


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    database = Database(schema.Database())
    await database.connect(database_url)
    parts = stores(database)
    commits: list[None] = []
    kept = ResponseCache(schema.Api(cache_s=60), lambda: (len(commits), parts.quotas.changes))
    api = Api(replace(parts, cache=kept), routing(), digest(ADMIN_KEY))
    async with TestClient(RawTestServer(handler(api))) as client:
        served = Served(database, client, kept, commits)
        for project in ("shop", "lab"):
            async with database.acquire() as connection:
                await connection.execute(
                    "INSERT INTO projects (id, organization_id, name) VALUES ($1, 'default-org', $1)", project
                )
            await served.store(len(served.keys), project)
            made = await parts.keys.create(NewKey("k", "alice", project, {}, None), "test")
            assert made is not None
            served.keys[project] = made[1]
        yield served
    await database.close()


def _requests(answer) -> int:
    return orjson.loads(answer[2])["totalRequests"]


async def test_answer_when_kept_then_given_again_until_this_process_commits(served: Served) -> None:
    path = "/v1/analytics?projectId=shop"
    assert _requests(await served.ask(path)) == 1
    await served.store(10, "shop")
    assert _requests(await served.ask(path)) == 1
    assert _requests(await served.ask(path + "&groupBy=week")) == 2, "another question"
    served.commits.append(None)
    assert _requests(await served.ask(path)) == 2


async def test_answer_when_others_ask_the_same_then_each_sees_own_project(served: Served) -> None:
    path = "/v1/analytics/projects"
    for _ in range(2):
        names = {
            who: [one["projectId"] for one in orjson.loads((await served.ask(path, who))[2])["projects"]]
            for who in (ADMIN_KEY, "shop", "lab")
        }
        assert names == {ADMIN_KEY: ["lab", "shop"], "shop": ["shop"], "lab": ["lab"]}
    assert (await served.ask("/v1/analytics?projectId=shop"))[0] == 200
    assert (await served.ask("/v1/analytics?projectId=shop", "lab"))[0] == 404
    assert (await served.ask("/v1/analytics?projectId=shop", "wrong"))[0] == 401
    assert (await served.ask("/v1/analytics?projectId=shop&bogus="))[0] == 400


async def test_quota_when_changed_from_here_then_status_is_exact_at_once(served: Served) -> None:
    async def limit() -> int:
        return orjson.loads((await served.ask(STATUS, "shop"))[2])["maxTokensDaily"]

    body = {"userId": "alice", "projectId": "shop"}
    for tokens in (10, 20):
        assert (await served.ask("/v1/quota/update", method="POST", body=body | {"maxTokensDaily": tokens}))[0] == 200
        assert await limit() == tokens
    async with served.database.transaction() as connection:
        await connection.execute("UPDATE user_quotas SET max_tokens_daily = 30")
    assert await limit() == 20, "another process has changed it"
    assert (await served.ask("/v1/quota/reset", method="POST", body=body))[0] == 200
    assert await limit() == 30
    async with served.database.transaction() as connection:
        await connection.execute("UPDATE user_quotas SET max_tokens_daily = 40")
    await stores(served.database).quotas.renew([])  # of another ledger: nothing that this one knows of
    assert await limit() == 30
    config = {"features": {"enableCache": True}}
    path = "/v1/sidegate/projects/shop/config"
    status, _, text = await served.ask(path, method="PUT", body=config, **{"If-Match": "*"})
    assert status == 200, text
    assert await limit() == 40


async def test_answer_when_client_names_its_tag_then_304_without_a_body(served: Served) -> None:
    trace_id = await served.store(11, "shop")
    paths = (
        "/v1/analytics?projectId=shop",
        "/v1/analytics/latency?format=csv",
        STATUS,
        f"/v1/traces/{trace_id}",
        "/v1/sidegate/projects/shop/config",
    )
    for path in paths:
        status, headers, text = await served.ask(path)
        assert status == 200 and text
        tag = headers["ETag"]
        for named in (tag, f'"other", W/{tag}', "*"):
            status, headers, text = await served.ask(path, **{"If-None-Match": named})
            assert (status, headers["ETag"], headers["Cache-Control"], text) == (304, tag, "no-store", b""), path
        status, _, text = await served.ask(path, **{"If-None-Match": '"other"'})
        assert status == 200 and text
    for path in ("/v1/traces", "/v1/quota/top"):
        assert "ETag" not in (await served.ask(path, **{"If-None-Match": "*"}))[1]
    await served.store(12, "shop")
    served.commits.append(None)
    path = "/v1/analytics?projectId=shop"
    changed = await served.ask(path)
    assert (await served.ask(path, **{"If-None-Match": '"x"'}))[1]["ETag"] == changed[1]["ETag"]
    assert _requests(changed) == 3


async def test_status_of_a_quota_is_not_kept_beyond_the_end_of_its_window(served: Served) -> None:
    await served.ask(
        "/v1/quota/update", method="POST", body={"userId": "alice", "projectId": "shop", "maxTokensDaily": 5}
    )
    async with served.database.acquire() as connection:
        await connection.execute(
            "UPDATE user_quotas SET current_tokens_today = 3, reset_at = now() + interval '0.5 seconds'"
        )
    assert orjson.loads((await served.ask(STATUS))[2])["currentTokensToday"] == 3
    await asyncio.sleep(0.6)
    assert orjson.loads((await served.ask(STATUS))[2])["currentTokensToday"] == 0
