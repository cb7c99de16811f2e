"""What the tests of the dashboard look at: a small company's month of traces, and a server of the API and the page.

Some of its names try to be markup. Everything hangs on today, because the dashboard asks for the last days.
"""

import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from proxy.config import schema
from proxy.db.pool import Database
from proxy.errors import ProxyError
from proxy.journal.frames import Kind, Record
from proxy.trace.record import trace_id
from proxy.trace.store import TraceStore
from tests.fakes.own_api import ADMIN_KEY as KEY
from tests.fakes.own_api import handler, own_api

__all__ = ["HOSTILE", "KEY", "seeded", "serving"]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
MODELS = (("gpt-4o-mini", "L0", 0.4), ("gpt-4o", "L1", 4.0), ("o4-mini", "L2", 2.2), ("o3-pro", "L3", 30.0))
USERS = ("alice", "bob", "carol", "dave", "erin", HOSTILE)
PHASES = ("identify", "parse", "scan", "plan", "reserve", "intent", "dispatch")


def traces(number: int, days: int = 30, seed: int = 11) -> list[dict[str, Any]]:
    """Return finished requests, the latest last. The latest one escalated, has findings and hostile names."""
    dice = random.Random(seed)
    now = datetime.now(UTC)
    ages = sorted((dice.random() ** 0.8 * days * 86_400 for _ in range(number)), reverse=True)
    made = [_trace(dice, now - timedelta(seconds=age + 30)) for age in ages]
    return [*made, _showpiece(dice, now - timedelta(seconds=12))]


def _trace(dice: random.Random, at: datetime) -> dict[str, Any]:
    outcome = dice.choices(("ok", "upstream_error", "rejected", "client_abort"), (93, 3, 2, 2))[0]
    kinds = dice.choices(MODELS, (55, 25, 14, 6))
    calls = [] if outcome == "rejected" else [_call(dice, 0, 9.0, kinds[0], outcome == "upstream_error")]
    return _document(dice, at, outcome, dice.choice(USERS[:5]), calls)


def _showpiece(dice: random.Random, at: datetime) -> dict[str, Any]:
    weak = _call(dice, 0, 11.2, MODELS[0], False)
    failed = _call(dice, 1, weak["startedMs"] + weak["durationMs"] + 2, MODELS[3], True)
    strong = _call(dice, 2, failed["startedMs"] + failed["durationMs"] + 40, (HOSTILE, "L3", 30.0), False)
    weak["why"], failed["why"], strong["why"] = "first", "escalation", "fallback"
    document = _document(dice, at, "ok", HOSTILE, [weak, failed, strong])
    document["routing_decisions"] = [
        {
            "reason": "complexity 0.71 asks for L1, escalation allowed up to L3",
            "complexity": 0.71,
            "candidates": [
                {"upstream": "openai", "model": "gpt-4o-mini", "layer": "L0", "maxCost": "0.004"},
                {"upstream": "openai", "model": "o3-pro", "layer": "L3", "maxCost": "0.61"},
            ],
            "rejected": [{"upstream": "azure", "model": HOSTILE, "layer": "L3", "why": "breaker is open"}],
        }
    ]
    return document


def _document(
    dice: random.Random, at: datetime, outcome: str, user: str, calls: list[dict[str, Any]]
) -> dict[str, Any]:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)  # an id holds milliseconds
    own = {name: round(dice.uniform(0.02, 1.4), 3) for name in PHASES}
    own["dispatch"] = calls[-1]["startedMs"] + calls[-1]["durationMs"] - 3 if calls else 0.02
    total = sum(own.values()) + 0.4
    found = {"rule": "email", "category": "pii", "severity": "medium", "action": "redact", "direction": "input"}
    return {
        "id": trace_id(int(at.timestamp() * 1000)),
        "created_at": at.isoformat(),
        "request_type": "chat",
        "operation": "chat.completions.create",
        "user_id": user,
        "project_id": "shop",
        "model": calls[0]["model"] if calls else "gpt-4o-mini",
        "outcome": outcome,
        "status": {"ok": 200, "upstream_error": 500, "rejected": 429, "client_abort": None}[outcome],
        "stream": True,
        "routing_decisions": [{"reason": "model asked for", "candidates": []}],
        "llm_calls": calls,
        "tool_calls": [],
        "input_tokens": sum(call["inputTokens"] for call in calls),
        "cached_input_tokens": sum(call["cachedInputTokens"] for call in calls),
        "output_tokens": sum(call["outputTokens"] for call in calls),
        "reasoning_tokens": 0,
        "usage_source": "provider",
        "total_cost": f"{sum(float(call['cost']) for call in calls):.9f}",
        "total_duration_ms": total,
        "first_byte_ms": calls[-1]["startedMs"] + calls[-1]["firstByteMs"] if calls else None,
        "upstream_ms": sum(call["durationMs"] for call in calls),
        "overhead_ms": 2.1,
        "phases": own,
        "policy": {
            "version": "3f9a2c",
            "scanned": {"input": 1840, "output": 912},
            "findings": [{**found, "place": "messages[1].content", "start": 4, "end": 21}]
            if dice.random() < 0.1
            else [],
        },
    }


def _call(
    dice: random.Random, index: int, started: float, kind: tuple[str, str, float], failed: bool
) -> dict[str, Any]:
    model, layer, price = kind
    given, said = int(dice.lognormvariate(6.6, 0.7)), 0 if failed else int(dice.lognormvariate(5.6, 0.7))
    took = dice.lognormvariate(5.2 + 0.45 * int(layer[1]), 0.5) * (0.2 if failed else 1)
    return {
        "index": index,
        "upstream": "openai",
        "model": model,
        "layer": layer,
        "status": 500 if failed else 200,
        "error": {"code": "server_error"} if failed else None,
        "startedMs": round(started, 3),
        "firstByteMs": round(took * 0.3, 3),
        "durationMs": round(took, 3),
        "inputTokens": given,
        "cachedInputTokens": given // 4,
        "outputTokens": said,
        "cost": f"{(given + 4 * said) * price / 1e6:.9f}",
    }


async def seeded(database_url: str, number: int = 300) -> None:
    """Store the traces, and three quotas."""
    database = Database(schema.Database())
    await database.connect(database_url)
    store, made = TraceStore(database, schema.Database()), traces(number)
    for at in range(0, len(made), 300):
        records = [Record(Kind.FINAL, UUID(one["id"]).bytes, orjson.dumps(one), 0, 0) for one in made[at : at + 300]]
        async with database.transaction() as connection:
            await store.apply(connection, records)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name) VALUES ('shop', 'default-org', 'Shop')"
        )
        for user, tokens, cost in (("alice", 940_000, "9.1"), ("bob", 320_000, "3.2"), (HOSTILE, 1_000_000, "10")):
            await connection.execute(
                "INSERT INTO user_quotas (user_id, project_id, max_tokens_daily, max_cost_daily, current_tokens_today,"
                " current_cost_today) VALUES ($1, 'shop', 1000000, 10, $2, $3::text::numeric)",
                user,
                tokens,
                cost,
            )
    await database.close()


@contextlib.asynccontextmanager
async def serving(database_url: str) -> AsyncIterator[str]:
    """Serve page and API over one database; yields the address."""
    database = Database(schema.Database())
    await database.connect(database_url)
    api = own_api(database)
    answer = handler(api)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if not request.raw_path.startswith("/ui"):
            return await answer(request)
        try:
            return api.page(request)
        except ProxyError as error:
            return web.Response(status=error.http_status)

    async with RawTestServer(handle) as server:
        yield str(server.make_url("")).rstrip("/")
    await database.close()
