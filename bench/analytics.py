"""Measure the questions of analytics on a history of many traces, while a writer goes on storing.

Traces are made by one statement per day, with the triggers off; then their sums, as the migration makes them, and one
day is checked. Then every question is asked over and over: of all, of one project and of one user, over 7 and 90 days.
The times are those of `Analytics` and `TraceStore` on a connection of their own; the API adds a few hundred
microseconds. "cpu" is the time of that connection's server process, which says more where the machine does other things
too. The writer stores batches of 500 by the product's own applier.

Run it with `python -m bench.analytics --traces 1000000`; `--keep DIR` keeps the database for another look.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from proxy.analytics.figures import Question
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.config import schema
from proxy.db import migrate
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.pool import Database
from proxy.journal.frames import Kind, Record
from proxy.trace.record import trace_id
from proxy.trace.store import TraceStore
from proxy.trace.stored import Filters

DAYS, PROJECTS, USERS = 90, 20, 1_000
MODELS = (
    "gpt-4o-mini",
    "gpt-4o",
    "o4-mini",
    "o3-pro",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "o3",
    "small",
    "embed",
)
LAYERS = ("L0", "L1", "L2", "L3", "L1", "L0", "L0", "L3", "L0", "L0")
BATCH = 500
SETTINGS = schema.Database(acquire_timeout_s=60, statement_timeout_s=600)

# $1 the day, $2 how many, $3 models, $4 layers. Durations and sizes are spread as they are in life, over decades.
GENERATE = """
INSERT INTO request_traces (id, created_at, request_type, operation, user_id, project_id, model, outcome, status,
    stream, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, usage_source, total_cost,
    total_duration_ms, first_byte_ms, upstream_ms, overhead_ms, llm_calls, routing_decisions, policy, phases)
SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid,
    to_timestamp(ms / 1000.0), type, 'x', 'user-' || person, 'project-' || person % 20, model, outcome,
    CASE outcome WHEN 'ok' THEN 200 WHEN 'rejected' THEN 429 ELSE 500 END, true, given, given / 4, said, 0, 'provider',
    (given + 4 * said) * 0.000002, took, took / 3, took - 2, 2,
    CASE WHEN outcome = 'rejected' THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
        'index', 0, 'upstream', 'openai', 'model', model, 'layer', layer, 'status', CASE outcome WHEN 'ok' THEN 200
        ELSE 500 END, 'inputTokens', given, 'cachedInputTokens', given / 4, 'outputTokens', said, 'cost',
        ((given + 4 * said) * 0.000002)::text, 'startedMs', 1.5, 'firstByteMs', took / 3, 'durationMs', took - 2)) END,
    jsonb_build_array(jsonb_build_object('reason', 'named', 'candidates', '[]'::jsonb)),
    CASE WHEN finds THEN '{"version": "1", "findings": [{"rule": "email", "category": "pii", "action": "redact",
        "direction": "input"}]}'::jsonb ELSE '{"version": "1"}' END, '{"parse": 0.2, "dispatch": 300}'
FROM (
    SELECT ms, md5(ms::text || n) AS noise, ($3::text[])[pick] AS model, ($4::text[])[pick] AS layer,
        CASE WHEN pick = 10 THEN 'embeddings' WHEN kind < 0.15 THEN 'responses' ELSE 'chat' END AS type,
        CASE WHEN luck < 0.93 THEN 'ok' WHEN luck < 0.96 THEN 'rejected' ELSE 'upstream_error' END AS outcome,
        (power(person, 2) * 1000)::int AS person, (40 * exp(5 * size))::bigint AS given,
        (5 * exp(5 * length))::bigint AS said,
        round((60 * exp(2.2 * sqrt(-2 * ln(1 - slow)) * cos(6.2831853 * turn) * 0.4 + pick * 0.15))::numeric, 3)::float8
            AS took, finds < 0.02 AS finds
    FROM (
        SELECT n, (extract(epoch FROM $1::date::timestamp AT TIME ZONE 'UTC') * 1000)::bigint
                + (random() * 86399000)::bigint AS ms,
            1 + floor(power(random(), 2) * 9.99)::int AS pick, random() AS kind, random() AS luck,
            random() * 0.9999 AS person,
            random() AS size, random() AS length, random() * 0.9999 AS slow, random() AS turn, random() AS finds
        FROM generate_series(1, $2::int) AS n
    ) AS dice
) AS request
ON CONFLICT DO NOTHING
"""
SUM_UP_USAGE = "INSERT INTO analytics_usage SELECT * FROM sidegate_usage(NULL, NULL, $1, $2)"
SUM_UP_LATENCY = "INSERT INTO analytics_latency SELECT * FROM sidegate_latency(NULL, NULL, $1, $2)"
SUM_UP_FINDINGS = "INSERT INTO analytics_findings SELECT * FROM sidegate_findings(NULL, $1, $2)"
PARTITION = (
    "CREATE TABLE IF NOT EXISTS {table}_b{day:%Y%m%d} PARTITION OF {table}"
    " FOR VALUES FROM ('{day} 00:00+00') TO ('{past} 00:00+00')"
)


async def generate(connection: asyncpg.Connection, database: Database, traces: int) -> None:
    today = datetime.now(UTC).date()
    await connection.execute("SELECT setseed(0.5)")
    await connection.execute("ALTER TABLE request_traces DISABLE TRIGGER USER")
    began = time.monotonic()
    for age in range(DAYS, 0, -1):
        day = today - timedelta(days=age)
        await connection.execute(PARTITION.format(table="request_traces", day=day, past=day + timedelta(days=1)))
        await connection.execute(GENERATE, day, traces // DAYS, list(MODELS), list(LAYERS), timeout=600)
    await connection.execute("ALTER TABLE request_traces ENABLE TRIGGER USER")
    print(f"{traces:,} traces made in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    for age in range(DAYS, 0, -1):
        since = datetime.combine(today - timedelta(days=age), datetime.min.time(), UTC)
        await connection.execute(SUM_UP_USAGE, since, since + timedelta(days=1), timeout=600)
        await connection.execute(SUM_UP_LATENCY, since, since + timedelta(days=1), timeout=600)
        await connection.execute(SUM_UP_FINDINGS, since, since + timedelta(days=1), timeout=600)
    print(f"sums made in {time.monotonic() - began:.0f} s", flush=True)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    began = time.monotonic()
    wrong = sum(row.wrong for row in await Rollup(database, 0).check(today - timedelta(days=3), None))
    print(f"one day checked in {time.monotonic() - began:.1f} s: {wrong} sums differ", flush=True)


def record(dice: random.Random) -> Record:
    now_ms, pick = time.time_ns() // 1_000_000, min(int(dice.random() ** 2 * 10), 9)
    person, took = int(dice.random() ** 2 * USERS), dice.lognormvariate(5.5, 0.9)
    identity, given = trace_id(now_ms), dice.randrange(40, 6000)
    cost = f"{given * 0.000003:.9f}"
    call = {"index": 0, "upstream": "openai", "model": MODELS[pick], "layer": LAYERS[pick], "status": 200}
    call |= {"inputTokens": given, "outputTokens": 200, "cost": cost, "durationMs": took, "firstByteMs": took / 3}
    body = {
        "id": identity,
        "created_at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(),
        "request_type": "chat",
        "operation": "x",
        "user_id": f"user-{person}",
        "project_id": f"project-{person % PROJECTS}",
        "model": MODELS[pick],
        "outcome": "ok",
        "status": 200,
        "llm_calls": [call],
        "input_tokens": given,
        "output_tokens": 200,
        "total_cost": cost,
        "total_duration_ms": took,
        "first_byte_ms": took / 3,
        "policy": {"version": "1"},
    }
    return Record(Kind.FINAL, UUID(identity).bytes, json.dumps(body).encode(), 0, 0)


async def write(database: Database, rate: float, stored: list[float]) -> None:
    """Store batches for ever; `stored` gets the seconds that each took."""
    store, dice = TraceStore(database, SETTINGS), random.Random(3)
    due = time.monotonic()
    while True:
        batch = [record(dice) for _ in range(BATCH)]
        began = time.monotonic()
        async with database.transaction() as connection:
            await store.apply(connection, batch)
        stored.append(time.monotonic() - began)
        due = max(due + BATCH / rate, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


def questions(analytics: Analytics, store: TraceStore, ids: list[UUID]) -> dict[str, Callable[[], Awaitable[object]]]:
    today = datetime.now(UTC).date()
    asked: dict[str, Callable[[], Awaitable[object]]] = {}

    def since(days: int) -> date:
        return today - timedelta(days=days - 1)

    for who, project, user in (("all", None, None), ("project", "project-1", None), ("user", None, "user-41")):
        for days in (7, 90):
            question = Question(project_id=project, user_id=user, since=since(days), until=today)
            asked |= {
                f"usage, {who}, {days} days": lambda q=question: analytics.usage(q),
                f"series, {who}, {days} days": lambda q=question: analytics.series(q, "model", 10),
                f"latency, {who}, {days} days": lambda q=question: analytics.latency(q),
                f"expensive, {who}, {days} days": lambda q=question: analytics.expensive(q, 10),
            }
            if user is None:
                asked |= {
                    f"users, {who}, {days} days": lambda q=question: analytics.users(q, 50),
                    f"findings, {who}, {days} days": lambda q=question: analytics.findings(q, 50),
                }
    whole = Question(since=since(90), until=today)
    chat = Question(since=since(90), until=today, request_type="chat")
    asked |= {
        "projects, all, 90 days": lambda: analytics.projects(whole, 50),
        "usage, all, 90 days, chat": lambda: analytics.usage(chat),
        "latency, all, 90 days, chat": lambda: analytics.latency(chat),
        "users, all, 90 days, chat": lambda: analytics.users(chat, 50),
        "expensive, all, 90 days, one model": lambda: analytics.expensive(
            Question(since=since(90), until=today, model="embed"), 10
        ),
        "usage, all, to the moment": lambda: analytics.usage(
            Question(since=datetime.now(UTC) - timedelta(days=30), until=datetime.now(UTC))
        ),
        "trace by id": lambda: store.get(random.choice(ids)),
        "latest traces": lambda: store.search(Filters(), 50),
        "latest traces of a user": lambda: store.search(Filters(user_id="user-41"), 50),
    }
    return asked


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def measure(database: Database, rounds: int, only: str) -> None:
    analytics, store = Analytics(database), TraceStore(database, SETTINGS)
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT id FROM request_traces TABLESAMPLE SYSTEM (1) LIMIT 500")
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    asked = questions(analytics, store, [row["id"] for row in rows])
    print(f"\n{'milliseconds':38}{'median':>9}{'p95':>9}{'cpu':>9}")
    for name, ask in asked.items():
        if only not in name:
            continue
        await ask()
        times, before = [], cpu_ms(pid)
        for _ in range(rounds):
            began = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        cpu = (cpu_ms(pid) - before) / rounds
        print(f"{name:38}{statistics.median(times):9.1f}{times[int(len(times) * 0.95)]:9.1f}{cpu:9.1f}", flush=True)


async def sizes(connection: asyncpg.Connection) -> None:
    for name in ("usage", "sums", "latency", "latency_sums", "findings"):
        number, size = await connection.fetchrow(
            f"SELECT count(*), pg_size_pretty(pg_total_relation_size('analytics_{name}')) FROM analytics_{name}"  # noqa: S608
        )
        print(f"analytics_{name:14}{number:>12,} rows {size}")


async def run(options: argparse.Namespace, directory: Path) -> None:
    server = EmbeddedPostgres(directory / "postgres", settings={"shared_buffers": "512MB", "max_wal_size": "4GB"})
    url = await server.start()
    database, reading = Database(SETTINGS), Database(SETTINGS.model_copy(update={"pool_size": 1}))
    try:
        connection = await asyncpg.connect(url)
        await migrate.up(connection)
        await database.connect(url)
        await reading.connect(url)
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM request_traces)"):
            await generate(connection, database, options.traces)
        await sizes(connection)
        stored: list[float] = []
        writing = asyncio.create_task(write(database, options.rate, stored)) if options.rate else None
        await measure(reading, options.rounds, options.only)
        if writing is not None:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            took = statistics.median(stored)
            print(
                f"\n{len(stored)} batches of {BATCH}: {took * 1000:.0f} ms each, {BATCH / took:,.0f} traces/s at most"
            )
        await connection.close()
    finally:
        await reading.close()
        await database.close()
        await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often each question is asked")
    parser.add_argument("--rate", type=float, default=1000.0, help="traces per second meanwhile; 0: no writer")
    parser.add_argument("--only", default="", help="questions with this in their name")
    parser.add_argument("--keep", type=Path, help="directory of the database; used again if it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidegate-analytics-") as temporary:
        Path(temporary).chmod(0o711)
        asyncio.run(run(options, options.keep or Path(temporary)))
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
