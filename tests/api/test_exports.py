import csv
import io
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.api.exports import answer, as_rows, cell, streamed
from tests.api.test_analytics import ALL, HISTORY, client
from tests.fakes.own_api import ADMIN_KEY

__all__ = ["client"]
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


async def _export(client, path: str, status: int = 200) -> str:
    async with client.get(path, headers=HEADERS) as found:
        assert found.status == status, await found.text()
        return (await found.read()).decode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("gpt-4o", "gpt-4o"),
        ("", ""),
        (None, ""),
        (-2, "-2"),
        (True, "true"),
        (orjson.Fragment("0.000000001"), "0.000000001"),
        (datetime(2026, 10, 7, tzinfo=UTC), "2026-10-07T00:00:00Z"),
    ],
)
def test_cell_is_never_a_formula(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_rows_of_a_document_are_its_figures_and_its_tables() -> None:
    document = {
        "timeRange": {"start": "a", "end": "b"},
        "totalRequests": 3,
        "totalTokens": {"input": 1, "output": 2},
        "breakdown": {"byModel": {"m": {"cost": 4, "tokens": {"input": 1}}}, "byLayer": {}},
        "series": [{"name": "m", "points": [{"date": "d", "calls": 1}, {"date": "e", "calls": 2}]}],
        "users": [{"userId": "u", "cost": 5}],
    }
    total = {"part": "total", "timeRangeStart": "a", "timeRangeEnd": "b", "totalRequests": 3}
    assert list(as_rows(document)) == [
        {**total, "totalTokensInput": 1, "totalTokensOutput": 2},
        {"part": "series", "name": "m", "date": "d", "calls": 1},
        {"part": "series", "name": "m", "date": "e", "calls": 2},
        {"part": "users", "userId": "u", "cost": 5},
        {"part": "byModel", "name": "m", "cost": 4, "tokensInput": 1},
    ]


def test_answer_without_a_format_is_the_document() -> None:
    assert answer({}, {"users": []}).body == b'{"users":[]}'


async def test_traces_as_csv_keep_every_digit_and_the_order(client) -> None:
    rows = list(csv.DictReader(io.StringIO(await _export(client, "/v1/traces?format=csv"))))
    assert [row["id"] for row in rows] == [request.id for request in reversed(HISTORY)]
    assert [Decimal(row["totalCost"]) for row in rows] == [0, Decimal("0.000000333"), Decimal("0.250000001")]
    assert [row["llmCalls"] for row in rows] == ["0", "1", "2"] and rows[0]["outcome"] == "rejected"


async def test_traces_as_json_lines_are_whole_and_filtered(client) -> None:
    lines = (await _export(client, "/v1/traces?format=jsonl&userId=bob")).splitlines()
    [trace] = [orjson.loads(line) for line in lines]
    assert (trace["id"], len(trace["llmCalls"]), trace["userId"]) == (HISTORY[1].id, 1, "bob")
    assert "limit" in await _export(client, "/v1/traces?format=jsonl&limit=5", 400)
    assert "json, csv, jsonl" in await _export(client, "/v1/traces?format=xml", 400)
    assert await _export(client, "/v1/traces?format=jsonl&userId=nobody") == ""


@pytest.mark.parametrize(
    ("path", "part", "column", "values"),
    [
        ("", "byModel", "cost", ["0.250000333", "0.000000001"]),
        ("/error-rate", "byModel", "errors", ["0", "1"]),
        ("/series", "series", "date", ["2026-10-07", "2026-10-07"]),
        ("/top-expensive", "requests", "traceId", [HISTORY[0].id, HISTORY[1].id]),
        ("/users", "users", "userId", ["alice", "bob"]),
        ("/projects", "projects", "tokensTotal", ["185"]),
        ("/latency", "total", "durationMsCount", ["3"]),
        ("/policy", "findings", "rule", ["email"]),
        ("/cache", "byDay", "cacheHits", ["1"]),
    ],
)
async def test_every_question_of_analytics_has_rows(
    client, path: str, part: str, column: str, values: list[str]
) -> None:
    text = await _export(client, f"/v1/analytics{path}?{ALL}&format=csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row[column] for row in rows if row["part"] == part] == values
    lines = [
        orjson.loads(line) for line in (await _export(client, f"/v1/analytics{path}?{ALL}&format=jsonl")).splitlines()
    ]
    assert len(lines) == len(rows)


async def test_export_that_fails_midway_is_seen_to_be_cut() -> None:
    async def pages():
        yield [{"a": 1}]
        raise RuntimeError("the database went away")

    async def handle(_request: web.BaseRequest) -> web.Response:
        return streamed(pages(), ["a"], "csv")

    async with TestClient(RawTestServer(handle)) as client:
        answer = await client.get("/")
        with pytest.raises(ClientPayloadError):
            await answer.read()
