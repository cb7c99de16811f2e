"""The endpoints of analytics as a client sees them; that the sums are right is tested in tests/analytics."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.config import schema
from proxy.db.pool import Database
from proxy.trace.store import TraceStore
from tests.analytics.history import Call, Request
from tests.fakes.own_api import ADMIN_KEY, handler, own_api

SETTINGS = schema.Database()
DAY = date(2026, 10, 7)
ALL = "startDate=2026-10-07&endDate=2026-10-08"


def _request(minute: int, outcome: str, *calls: Call, us: int | None = 2000, user: str = "alice") -> Request:
    at = datetime(2026, 10, 7, 10, minute, tzinfo=UTC)
    request = Request(at, "unknown", user, "chat", outcome, False, us, list(calls))
    request.id = f"{int(at.timestamp() * 1000):012x}70008000000000000001"
    request.id = "-".join(request.id[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    return request


HISTORY = [
    _request(1, "ok", Call("L0", "small", True, 10, 0, 1, 1000), Call("L3", "opus", False, 100, 50, 250_000_000, 3000)),
    _request(2, "ok", Call("L3", "opus", False, 20, 5, 333, 1000), us=4000, user="bob"),
    _request(3, "rejected"),
]
HISTORY[0].findings, HISTORY[1].cached = (2, 0), True


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[TestClient[web.BaseRequest, None]]:
    database = Database(SETTINGS)
    await database.connect(database_url)
    store = TraceStore(database, SETTINGS)
    async with database.transaction() as connection:
        await store.apply(connection, [request.record() for request in HISTORY])
    client = TestClient(RawTestServer(handler(own_api(database))))
    await client.start_server()
    yield client
    await client.close()
    await database.close()


async def _get(client, path: str, status: int = 200, method: str = "GET"):
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with client.request(method, f"/v1/analytics{path}", headers=headers) as response:
        body = await response.read()
        assert response.status == status, body
        return json.loads(body, parse_float=Decimal)


async def test_usage_has_the_members_of_the_contract(client) -> None:
    assert await _get(client, f"?{ALL}") == {
        "timeRange": {"start": "2026-10-07T00:00:00Z", "end": "2026-10-09T00:00:00Z"},
        "totalRequests": 3,
        "totalTokens": {"input": 130, "output": 55, "total": 185},
        "totalCost": Decimal("0.250000334"),
        "breakdown": {
            "byLayer": {
                "L0": {"requests": 1, "tokens": 10, "cost": Decimal("1E-9"), "avgDurationMs": 1, "successRate": 0},
                "L3": {
                    "requests": 2,
                    "tokens": 175,
                    "cost": Decimal("0.250000333"),
                    "avgDurationMs": 2,
                    "successRate": 1,
                },
            },
            "byModel": {
                "opus": {
                    "requests": 2,
                    "tokens": {"input": 120, "output": 55, "total": 175},
                    "cost": Decimal("0.250000333"),
                    "avgDurationMs": 2,
                    "errors": 0,
                },
                "small": {
                    "requests": 1,
                    "tokens": {"input": 10, "output": 0, "total": 10},
                    "cost": Decimal("1E-9"),
                    "avgDurationMs": 1,
                    "errors": 1,
                },
            },
            "byDay": [
                {
                    "date": "2026-10-07",
                    "requests": 3,
                    "tokens": 185,
                    "cost": Decimal("0.250000334"),
                    "avgDurationMs": Decimal("2.667"),
                }
            ],
        },
    }


async def test_filters_narrow_the_sums(client) -> None:
    async def requests(query: str) -> int:
        return (await _get(client, f"?{ALL}&{query}"))["totalRequests"]

    assert await requests("userId=bob") == 1
    assert await requests("projectId=unknown") == 3
    assert await requests("projectId=other") == 0
    assert await requests("model=opus") == 2
    assert await requests("layer=L0") == 1
    assert await requests("requestType=responses") == 0
    assert (await _get(client, f"?{ALL}&groupBy=month"))["breakdown"]["byDay"][0]["date"] == "2026-10-01"
    exact = await _get(client, "?startDate=2026-10-07T10:02:00Z&endDate=2026-10-07T10:03:00%2B00:00")
    assert exact["totalRequests"] == 1
    assert exact["timeRange"] == {"start": "2026-10-07T10:02:00Z", "end": "2026-10-07T10:03:00Z"}


async def test_error_rate_tells_requests_from_calls(client) -> None:
    found = await _get(client, f"/error-rate?{ALL}")
    assert (found["totalRequests"], found["errors"], found["rejected"], found["aborted"]) == (3, 1, 1, 0)
    assert found["errorRate"] == Decimal("0.333333")
    assert found["byModel"]["small"] == {"requests": 1, "calls": 1, "errors": 1, "errorRate": 1}
    assert found["byDay"] == [{"date": "2026-10-07", "requests": 3, "errors": 1, "errorRate": Decimal("0.333333")}]


async def test_series_tell_the_course_of_calls_by_model_or_layer(client) -> None:
    found = await _get(client, f"/series?{ALL}&groupBy=month&limit=1")
    point = {"date": "2026-10-01", "requests": 2, "calls": 2, "errors": 0, "avgDurationMs": 2}
    point |= {"tokens": {"input": 120, "output": 55, "total": 175}, "cost": Decimal("0.250000333")}
    assert found["series"] == [{"name": "opus", "points": [point]}]
    assert [(point["date"], point["cost"], point["errors"]) for point in found["other"]] == [
        ("2026-10-01", Decimal("1E-9"), 1)
    ]
    layers = await _get(client, f"/series?{ALL}&by=layer")
    assert [one["name"] for one in layers["series"]] == ["L3", "L0"] and layers["other"] == []
    await _get(client, "/series?by=user", 400)


async def test_findings_and_cache_hits_are_told(client) -> None:
    found = await _get(client, f"/policy?{ALL}")
    assert found["findings"] == [
        {"rule": "email", "category": "pii", "action": "redact", "direction": "input", "findings": 2, "requests": 1}
    ]
    found = await _get(client, f"/cache?{ALL}")
    assert (found["totalRequests"], found["cacheHits"], found["hitRate"]) == (3, 1, Decimal("0.333333"))
    assert found["byDay"] == [{"date": "2026-10-07", "requests": 3, "cacheHits": 1, "hitRate": Decimal("0.333333")}]


async def test_top_expensive_lists_the_dearest_first(client) -> None:
    found = (await _get(client, f"/top-expensive?{ALL}&projectId=unknown&limit=1"))["requests"]
    assert [(row["traceId"], row["cost"], row["calls"]) for row in found] == [
        (HISTORY[0].id, Decimal("0.250000001"), 2)
    ]
    assert found[0]["tokens"] == {"input": 110, "output": 50, "total": 160}
    assert len((await _get(client, f"/top-expensive?{ALL}"))["requests"]) == 2  # what cost nothing is not dear


async def test_users_projects_and_latency(client) -> None:
    users = (await _get(client, f"/users?{ALL}"))["users"]
    assert [(row["userId"], row["requests"], row["errors"]) for row in users] == [("alice", 2, 1), ("bob", 1, 0)]
    [project] = (await _get(client, f"/projects?{ALL}"))["projects"]
    assert (project["projectId"], project["requests"], project["tokens"]["total"]) == ("unknown", 3, 185)
    found = await _get(client, f"/latency?{ALL}")
    assert found["durationMs"] == {"count": 3, "p50": 2, "p95": 4, "p99": 4}
    assert found["byModel"]["opus"]["durationMs"]["count"] == 2
    assert (await _get(client, f"/latency?{ALL}&userId=bob"))["durationMs"] == {
        "count": 1,
        "p50": 4,
        "p95": 4,
        "p99": 4,
    }


async def test_nothing_at_all_is_an_answer_too(client) -> None:
    found = await _get(client, "?projectId=empty")
    assert (found["totalRequests"], found["totalCost"], found["breakdown"]) == (
        0,
        0,
        {"byLayer": {}, "byModel": {}, "byDay": []},
    )
    assert (await _get(client, "/error-rate?projectId=empty"))["errorRate"] == 0
    assert (await _get(client, "/latency?projectId=empty"))["durationMs"]["p50"] is None


async def test_check_and_rebuild_of_a_day(client) -> None:
    [row] = (await _get(client, "/check?day=2026-10-07"))["projects"]
    assert (row["projectId"], row["differences"], row["kept"]) == ("unknown", 0, row["counted"])
    assert (await _get(client, "/rebuild?day=2026-10-07", method="POST"))["day"] == "2026-10-07"
    past = datetime.now(UTC).date() - timedelta(days=3650)
    assert (await _get(client, f"/check?day={past}", 400))["error"]["code"] == "traces_gone"


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("?startDate=yesterday", "startDate", "a day such as"),
        ("?startDate=1969-01-01", "startDate", "a day such as"),
        ("?endDate=9999-01-01T00:00:00Z", "endDate", "a day such as"),
        ("?startDate=2026-10-08&endDate=2026-10-07", "endDate", "must be after"),
        ("?startDate=2026-10-08T00:00:00Z&endDate=2026-10-08T00:00:00Z", "endDate", "must be after"),
        *(
            (f"{path}?startDate={future}", "startDate", "in the future")
            for path in ("", "/series", "/top-expensive", "/latency", "/users", "/policy")
            for future in ("2998-01-01", "2998-01-01T12:00:00Z")
        ),
        ("/latency?startDate=2026-10-08T23:00:00-05:00&endDate=2026-10-08", "endDate", "must be after"),
        ("?groupBy=hour", "groupBy", "one of day, week, month"),
        ("?group=day", "group", "did you mean `groupBy`?"),
        ("?userId=%00", "userId", "text"),
        ("/top-expensive?limit=0", "limit", "from 1 to 500"),
        ("/latency?model=x", "model", "Unknown parameter"),
        ("/users?userId=x", "userId", "Unknown parameter"),
        ("/check", "day", "missing"),
        ("/check?day=2026-10-07T00:00", "day", "a day such as"),
    ],
)
async def test_bad_parameter_is_refused_by_name(query: str, param: str, said: str, client) -> None:
    error = (await _get(client, query, 400))["error"]
    assert error["param"] == param
    assert said in error["message"]
