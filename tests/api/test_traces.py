import json
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from proxy.config import schema
from proxy.db.pool import Database
from proxy.exchange import Exchange
from proxy.journal.frames import Kind, Record
from proxy.trace import record
from proxy.trace.store import TraceStore
from tests.fakes.own_api import ADMIN_KEY, Serve
from tests.trace.exchanges import begun, finished

AUTHORIZED = {"Authorization": f"Bearer {ADMIN_KEY}"}
NOW_MS = time.time_ns() // 1_000_000
SETTINGS = schema.Database()


async def _store(database: Database, *exchanges: Exchange) -> None:
    records = [Record(Kind.FINAL, UUID(x.trace_id).bytes, record.final(x), 0, 0) for x in exchanges]
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, records)


async def _get(client, path: str, status: int = 200, **headers: str):
    async with client.get(path, headers=headers or AUTHORIZED) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/json"
        return json.loads(await response.read(), parse_float=Decimal), response.headers


async def test_trace_by_id_is_camel_case_with_exact_costs(database: Database, serve: Serve) -> None:
    client = await serve(database)
    x = finished(NOW_MS, conversation="thread-9", cost_nanos=12_345_678_901_234_567_891)
    await _store(database, x)
    trace, headers = await _get(client, f"/v1/traces/{x.trace_id}")
    assert trace["totalCost"] == trace["llmCalls"][0]["cost"] == Decimal("12345678901.234567891")
    assert (trace["id"], trace["conversationId"], trace["outcome"]) == (x.trace_id, "thread-9", "ok")
    assert trace["phases"]["identify"] == Decimal("0.1")
    assert trace["errorInfo"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", trace["createdAt"])
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name) for name in trace)
    assert headers["Cache-Control"] == "no-store"


async def test_trace_of_a_rejected_request_is_shown_with_its_empty_parts(database: Database, serve: Serve) -> None:
    client = await serve(database)
    x = begun(NOW_MS)
    await _store(database, x)
    trace, _ = await _get(client, f"/v1/traces/{x.trace_id}")
    assert (trace["llmCalls"], trace["userId"], trace["totalCost"]) == ([], None, 0)


async def test_small_costs_have_all_nine_digits_in_the_text(database: Database, serve: Serve) -> None:
    client = await serve(database)
    x = finished(NOW_MS, cost_nanos=1)
    await _store(database, x)
    async with client.get(f"/v1/traces/{x.trace_id}", headers=AUTHORIZED) as response:
        body = await response.read()
    assert body.count(b"0.000000001") == 2
    assert not re.search(rb":\s*[0-9.]+[eE]", body)


async def test_search_walks_all_pages_by_cursor(database: Database, serve: Serve) -> None:
    client = await serve(database)
    xs = [finished(NOW_MS - 1000 * i, user=f"user-{i % 2}") for i in range(9)]
    await _store(database, *xs)
    seen, path = [], "/v1/traces?userId=user-0&limit=2"
    while True:
        page, _ = await _get(client, path)
        seen += [trace["id"] for trace in page["traces"]]
        if page["nextCursor"] is None:
            break
        path = f"/v1/traces?userId=user-0&limit=2&cursor={page['nextCursor']}"
    assert seen == [x.trace_id for x in xs[::2]]


async def test_search_takes_every_filter_together(database: Database, serve: Serve) -> None:
    client = await serve(database)
    x = finished(NOW_MS, user="a b&c", project="p", conversation="c/1", model="m", cost_nanos=50_000_000)
    await _store(database, x, finished(NOW_MS))
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    since, until = (at - timedelta(seconds=1)).isoformat(), (at + timedelta(seconds=1)).isoformat()
    page, _ = await _get(
        client,
        f"/v1/traces?from={since}&to={until}&projectId=p&userId=a+b%26c&conversationId=c%2F1&model=m"
        "&requestType=chat&outcome=ok&status=200&minCost=0.05&limit=500",
    )
    assert [trace["id"] for trace in page["traces"]] == [x.trace_id]
    page, _ = await _get(client, f"/v1/traces?to={(at - timedelta(hours=1)).isoformat()}")
    assert page == {"traces": [], "nextCursor": None}


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/traces?limit=501", "limit"),
        ("/v1/traces?userid=x", "userid"),
        ("/v1/traces?outcome=fine", "outcome"),
        ("/v1/traces?from=2026-11-27&to=2026-11-26", "to"),
        ("/v1/traces/not-an-id", "traceId"),
        ("/v1/traces/01a20747-089f-770a-a1a8-378b0d047383?verbose=1", "verbose"),
    ],
)
async def test_bad_parameter_is_refused_by_name(path: str, param: str, serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    body, _ = await _get(client, path, 400)
    assert (body["error"]["param"], body["error"]["code"]) == (param, "invalid_parameter")


async def test_trace_that_is_not_there_yet_is_404_and_says_so(database: Database, serve: Serve) -> None:
    client = await serve(database)
    body, _ = await _get(client, f"/v1/traces/{begun(NOW_MS).trace_id}", 404)
    assert body["error"]["code"] == "trace_not_found"
    assert "about a second" in body["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/traces/01a20747-089f-770a-a1a8-378b0d047383"])
async def test_database_that_is_away_is_503_with_a_time_to_retry(path: str, serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    body, headers = await _get(client, path, 503)
    assert body["error"]["code"] == "database_unavailable"
    assert int(headers["Retry-After"]) > 0


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic YTpi", ""])
async def test_wrong_key_is_401_before_anything_is_parsed(header: str, serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    body, _ = await _get(client, "/v1/traces?limit=nonsense", 401, Authorization=header)
    assert body["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_wrong_method_is_405_with_the_allowed_ones(method: str, serve: Serve) -> None:
    client = await serve(Database(SETTINGS))
    async with client.request(method, "/v1/traces", headers=AUTHORIZED) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")
        assert (await response.json())["error"]["code"] == "method_not_allowed"
    async with client.head("/v1/traces") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")
