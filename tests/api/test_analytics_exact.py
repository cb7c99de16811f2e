"""Every figure of every endpoint, for a history of every kind of request, against plain arithmetic.

The history comes from `tests.analytics.history`: several projects in zones of their own, months, users; requests that
retried, escalated, were answered from the cache, refused, left, interrupted. Here its figures are those that clients
read, to the cent and the token; the statements below are tested over many more ranges in tests/analytics.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.config import schema
from proxy.db.pool import Database
from tests.analytics.history import ZONES, Request, Sum, call_sums, sums
from tests.analytics.test_queries import HISTORY, history_url, periods
from tests.fakes.own_api import ADMIN_KEY, handler, own_api

__all__ = ["history_url"]
DAYS = {"startDate": "2026-10-01", "endDate": "2026-11-08"}
MOMENTS = {"startDate": "2026-10-02T03:04:05.678Z", "endDate": "2026-11-03T22:50:01Z"}


class Asking:
    def __init__(self, client: TestClient) -> None:
        self._client = client

    async def __call__(self, path: str, **query: str | None) -> Any:
        given = urlencode({name: value for name, value in query.items() if value is not None})
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with self._client.get(f"/v1/analytics{path}?{given}", headers=headers) as response:
            text = await response.read()
            assert response.status == 200, text
            return json.loads(text, parse_float=Decimal)


@pytest.fixture
async def ask(history_url: str) -> AsyncIterator[Asking]:
    database = Database(schema.Database())
    await database.connect(history_url)
    async with TestClient(RawTestServer(handler(own_api(database)))) as client:
        yield Asking(client)
    await database.close()


def chosen(within: dict[str, str], **wanted: str | None) -> list[Request]:
    since, until = (datetime.fromisoformat(edge) for edge in within.values())

    def is_within(request: Request) -> bool:
        if within is DAYS:
            return since.date() <= request.day <= until.date()
        return since <= request.at < until

    return [
        request
        for request in HISTORY
        if is_within(request) and all(value in (None, getattr(request, name)) for name, value in wanted.items())
    ]


def cost(sum_: Sum) -> Decimal:
    return Decimal(sum_.nanos) / 10**9


def tokens(sum_: Sum) -> dict[str, int]:
    return {"input": sum_.input, "output": sum_.output, "total": sum_.input + sum_.output}


def rate(part: int, whole: int) -> Decimal:
    return Decimal(str(round(part / whole, 6)))


def milliseconds(sum_: Sum) -> Any:
    """Return an average; exact halves of a microsecond may be rounded up or down."""
    return pytest.approx(Decimal(str(sum_.average_ms)), abs=Decimal("0.001"))


def outcomes(requests: Iterable[Request]) -> Counter[str]:
    return Counter(request.outcome for request in requests)


def test_history_has_every_kind_of_request() -> None:
    assert {request.project for request in HISTORY} == set(ZONES) and len(set(ZONES.values())) == 3
    assert len({(request.day.year, request.day.month) for request in HISTORY}) == 3
    assert {"ok", "rejected", "upstream_error", "client_abort", "interrupted", "timeout"} == outcomes(HISTORY).keys()
    assert any(len({call.layer for call in request.calls}) > 1 for request in HISTORY), "escalated"
    assert any(len({call.model for call in request.calls}) < len(request.calls) for request in HISTORY), "retried"
    assert any(request.cached for request in HISTORY) and any(call.cut for r in HISTORY for call in r.calls)
    assert any(request.user is None for request in HISTORY)
    assert any(request.day != request.at.astimezone(UTC).date() for request in HISTORY)


@pytest.mark.parametrize("project", [None, "lab", "bank"])
@pytest.mark.parametrize("within", [DAYS, MOMENTS], ids=["days", "moments"])
async def test_totals_errors_and_cache_hits(within: dict[str, str], project: str | None, ask: Asking) -> None:
    requests = chosen(within, project=project)
    total, month = sums(requests, lambda _: 0)[0], periods("month")
    by_month = {
        first: sums([r for r in requests if month(r) == first], lambda _: 0)[0] for first in map(month, requests)
    }
    by_model = call_sums(requests, lambda call: call.model, lambda _: True)
    by_layer = call_sums(requests, lambda call: call.layer or "none", lambda _: True)
    query = {**within, "projectId": project, "groupBy": "month"}

    found = await ask("", **query)
    assert (found["totalRequests"], found["totalTokens"], found["totalCost"]) == (
        total.requests,
        tokens(total),
        cost(total),
    )
    assert found["breakdown"]["byLayer"] == {
        name: {
            "requests": part.requests,
            "tokens": part.input + part.output,
            "cost": cost(part),
            "avgDurationMs": milliseconds(part),
            "successRate": rate(part.calls - part.errors, part.calls),
        }
        for name, part in by_layer.items()
    }
    assert found["breakdown"]["byModel"] == {
        name: {
            "requests": part.requests,
            "tokens": tokens(part),
            "cost": cost(part),
            "avgDurationMs": milliseconds(part),
            "errors": part.errors,
        }
        for name, part in by_model.items()
    }
    assert found["breakdown"]["byDay"] == [
        {
            "date": first.isoformat(),
            "requests": part.requests,
            "tokens": part.input + part.output,
            "cost": cost(part),
            "avgDurationMs": milliseconds(part),
        }
        for first, part in sorted(by_month.items())
    ]

    found = await ask("/error-rate", **query)
    seen = outcomes(requests)
    assert [found[name] for name in ("totalRequests", "errors", "rejected", "aborted")] == [
        len(requests),
        len(requests) - seen["ok"] - seen["client_abort"],
        seen["rejected"],
        seen["client_abort"],
    ]
    assert found["errorRate"] == rate(total.errors, total.requests)
    assert {name: (one["calls"], one["errors"], one["errorRate"]) for name, one in found["byModel"].items()} == {
        name: (part.calls, part.errors, rate(part.errors, part.calls)) for name, part in by_model.items()
    }
    assert [(one["date"], one["requests"], one["errors"]) for one in found["byDay"]] == [
        (first.isoformat(), part.requests, part.errors) for first, part in sorted(by_month.items())
    ]

    found = await ask("/cache", **query)
    hits = Counter(month(request) for request in requests if request.cached)
    assert (found["cacheHits"], found["hitRate"]) == (hits.total(), rate(hits.total(), len(requests)))
    assert [(one["date"], one["requests"], one["cacheHits"]) for one in found["byDay"]] == [
        (first.isoformat(), part.requests, hits[first]) for first, part in sorted(by_month.items())
    ]


@pytest.mark.parametrize("project", [None, "lab", "bank"])
async def test_course_of_calls_and_findings(project: str | None, ask: Asking) -> None:
    requests, week = chosen(DAYS, project=project), periods("week")
    found = await ask("/series", **DAYS, projectId=project, groupBy="week", by="layer", limit="50")
    expected: dict[str, list[dict[str, Any]]] = {}
    for first in sorted({week(request) for request in requests}):
        for name, part in call_sums(
            [r for r in requests if week(r) == first], lambda call: call.layer or "none", lambda _: True
        ).items():
            expected.setdefault(name, []).append(
                {
                    "date": first.isoformat(),
                    "requests": part.requests,
                    "calls": part.calls,
                    "errors": part.errors,
                    "tokens": tokens(part),
                    "cost": cost(part),
                    "avgDurationMs": milliseconds(part),
                }
            )
    assert {one["name"]: one["points"] for one in found["series"]} == expected and found["other"] == []

    found = await ask("/policy", **DAYS, projectId=project)
    named, more = (sum(request.findings[n] for request in requests) for n in (0, 1))
    with_named, with_more = (sum(request.findings[n] > 0 for request in requests) for n in (0, 1))
    assert {(one["rule"], one["findings"], one["requests"]) for one in found["findings"]} == {
        ("email", named, with_named),
        ("", more, with_more),
    }


@pytest.mark.parametrize("kind", [None, "chat"])
@pytest.mark.parametrize("project", [None, "lab"])
async def test_shares_of_users_and_projects_and_dearest_requests(
    project: str | None, kind: str | None, ask: Asking
) -> None:
    requests = chosen(DAYS, project=project, type=kind)
    query = {**DAYS, "projectId": project, "requestType": kind}
    for path, member, by in (
        ("/users", "userId", lambda r: r.user or ""),
        ("/projects", "projectId", lambda r: r.project),
    ):
        shares = (await ask(path, **query))[path[1:]]
        assert [one["cost"] for one in shares] == sorted((one["cost"] for one in shares), reverse=True)
        expected = sums(requests, by)
        assert {one[member] for one in shares} == expected.keys()
        for one in shares:
            part, own = expected[one[member]], [request for request in requests if by(request) == one[member]]
            cached = sum(call.input // 3 for request in own for call in request.calls)
            seen = outcomes(own)
            assert one == {
                member: one[member],
                "requests": part.requests,
                "calls": part.calls,
                "errors": part.errors,
                "rejected": seen["rejected"],
                "aborted": seen["client_abort"],
                "cacheHits": sum(request.cached for request in own),
                "tokens": tokens(part) | {"cachedInput": cached},
                "cost": cost(part),
                "avgDurationMs": milliseconds(part),
            }
    found = (await ask("/top-expensive", **query, limit="15"))["requests"]
    nanos = {request.id: sum(call.nanos for call in request.calls) for request in requests}
    assert [one["cost"] * 10**9 for one in found] == sorted(nanos.values(), reverse=True)[:15]
    assert all(nanos[one["traceId"]] == one["cost"] * 10**9 for one in found)
