"""Measure the questions of analytics on a history of many traces, while a writer goes on storing.

The history is that of `bench.analytics_history`. Every question is asked over and over: of all, of one project and of
one user, over 7 and 90 days.
The times are those of `Analytics` and `TraceStore` on a connection of their own; the API adds a few hundred
microseconds. "cpu" is the time of that connection's server process, which says more where the machine does other things
too. The writer stores batches of 500 by the product's own applier.

Run it with `python -m bench.analytics --traces 1000000`; `--keep DIR` keeps the database for another look.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from bench.analytics_history import LAYERS, MODELS, PROJECTS, SERVER, USERS, generate
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

BATCH = 500
SETTINGS = schema.Database(acquire_timeout_s=60, statement_timeout_s=600)


def record(dice: random.Random) -> Record:
    now_ms, pick = time.time_ns() // 1_000_000, min(int(dice.random() ** 2 * 10), 9)
    person, took = int(dice.random() ** 2 * USERS), dice.lognormvariate(5.5, 0.9)
    identity, given = trace_id(now_ms), dice.randrange(40, 6000)
    tokens = {"inputTokens": given, "cachedInputTokens": given // 4, "outputTokens": 200, "reasoningTokens": 0}
    cost = f"{given * 0.000003:.9f}"
    call = {
        "index": 0,
        "upstream": "openai",
        "model": MODELS[pick],
        "layer": LAYERS[pick],
        "why": "first",
        "status": 200,
    }
    call |= tokens | {"usageSource": "provider", "priced": True, "cost": cost, "finishReasons": ["stop"]}
    call |= {"startedMs": 1.5, "durationMs": took, "firstByteMs": took / 3, "events": 200, "responseId": identity}
    body = {
        "id": identity,
        "created_at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(),
        "request_type": "chat",
        "operation": "chat.completions.create",
        "method": "POST",
        "path": "/v1/chat/completions",
        "user_id": f"user-{person}",
        "project_id": f"project-{person % PROJECTS}",
        "model": MODELS[pick],
        "response_model": MODELS[pick],
        "upstream": "openai",
        "stream": True,
        "outcome": "ok",
        "status": 200,
        "llm_calls": [call],
        "routing_decisions": [{"reason": "named", "candidates": [{"upstream": "openai", "model": MODELS[pick]}]}],
        "input_tokens": given,
        "cached_input_tokens": given // 4,
        "output_tokens": 200,
        "usage_source": "provider",
        "total_cost": cost,
        "total_duration_ms": took,
        "first_byte_ms": took / 3,
        "upstream_ms": took - 2,
        "overhead_ms": 2.0,
        "policy": {"version": "1", "scanned": {"input": 1200, "output": 300}},
        "phases": {"identify": 0.1, "parse": 0.2, "scan_prompt": 0.4, "reserve": 0.1, "dispatch": took},
        "client": {"userAgent": "OpenAI/Python 2.44.0", "sdk": "python", "retryCount": 0, "peer": "127.0.0.1"},
    }
    return Record(Kind.FINAL, UUID(identity).bytes, json.dumps(body).encode(), 0, 0)


async def write(url: str, rate: float) -> None:
    """Store batches until cancelled; prints the seconds that each took."""
    database = Database(SETTINGS)
    await database.connect(url)
    store, dice = TraceStore(database, SETTINGS), random.Random(3)
    due = time.monotonic()
    while True:
        batch = [record(dice) for _ in range(BATCH)]
        began = time.monotonic()
        async with database.transaction() as connection:
            await store.apply(connection, batch)
        print(time.monotonic() - began, flush=True)
        due = max(due + BATCH / rate, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


@asynccontextmanager
async def writer(url: str, rate: float) -> AsyncIterator[None]:
    """Let another process store batches meanwhile, so that what it does in Python does not delay the questions."""
    command = (sys.executable, "-m", "bench.analytics", "--write-to", url, "--rate", str(rate))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    began = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        process.terminate()
        told, _ = await process.communicate()
    stored = [float(line) for line in told.split()]
    each = statistics.median(stored)
    print(
        f"\n{len(stored) * BATCH / took:,.0f} traces/s stored meanwhile: {len(stored)} batches of {BATCH},"
        f" {each * 1000:.0f} ms each, so {BATCH / each:,.0f} traces/s at most"
    )


def questions(analytics: Analytics, store: TraceStore, ids: list[UUID]) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return every question, each with the filters that the API takes and the ranges that make it read most."""
    today = datetime.now(UTC).date()
    asked: dict[str, Callable[[], Awaitable[object]]] = {}

    def about(days: int, **filters: str) -> Question:
        return Question(since=today - timedelta(days=days - 1), until=today, **filters)

    def just_now(**filters: str) -> Question:
        now = datetime.now(UTC)
        return Question(since=now - timedelta(days=30, minutes=5), until=now, **filters)

    callers = {"all": {}, "project": {"project_id": "project-1"}, "user": {"user_id": "user-41"}}
    callers["largest user"] = {"user_id": "user-0"}
    for who, filters in callers.items():
        for days in (7, 90):
            question = about(days, **filters)
            asked |= {
                f"usage, {who}, {days} days": lambda q=question: analytics.usage(q),
                f"series, {who}, {days} days": lambda q=question: analytics.series(q, "model", 10),
                f"latency, {who}, {days} days": lambda q=question: analytics.latency(q),
                f"expensive, {who}, {days} days": lambda q=question: analytics.expensive(q, 10),
            }
            if "user_id" not in filters:
                asked |= {
                    f"users, {who}, {days} days": lambda q=question: analytics.users(q, 50),
                    f"findings, {who}, {days} days": lambda q=question: analytics.findings(q, 50),
                }
        asked[f"usage, {who}, 30 days to now"] = lambda f=filters: analytics.usage(just_now(**f))
        asked[f"latency, {who}, 90 days, chat"] = lambda f=filters: analytics.latency(
            about(90, request_type="chat", **f)
        )
        asked[f"usage, {who}, 90 days, chat, one model"] = lambda f=filters: analytics.usage(
            about(90, request_type="chat", model="o3", layer="L3", **f)
        )
        asked[f"expensive, {who}, one type"] = lambda f=filters: analytics.expensive(
            about(90, request_type="embeddings", **f), 500
        )
        asked[f"expensive, {who}, one model"] = lambda f=filters: analytics.expensive(
            about(90, model="embed", **f), 500
        )
        asked[f"expensive, {who}, nothing found"] = lambda f=filters: analytics.expensive(
            about(90, model="embed", request_type="chat", **f), 10
        )
    return asked | {
        "projects, all, 90 days": lambda: analytics.projects(about(90), 50),
        "users, all, 90 days, chat": lambda: analytics.users(about(90, request_type="chat"), 500),
        "trace by id": lambda: store.get(random.choice(ids)),
        "latest traces": lambda: store.search(Filters(), 50),
        "latest traces of a user": lambda: store.search(Filters(user_id="user-41"), 50),
    }


def cpu_ms(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1_000_000


async def measure(database: Database, rounds: int, only: str) -> None:
    analytics, store = Analytics(database), TraceStore(database, SETTINGS)
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT id FROM request_traces TABLESAMPLE SYSTEM (0.1) LIMIT 500")
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    asked = questions(analytics, store, [row["id"] for row in rows])
    print(f"\n{'milliseconds':42}{'median':>9}{'p95':>9}{'cpu':>9}{'p95':>9}")
    for name, ask in asked.items():
        if only not in name:
            continue
        await ask()
        times, costs = [], []
        for _ in range(rounds):
            began, before = time.perf_counter(), cpu_ms(pid)
            await ask()
            costs.append(cpu_ms(pid) - before)
            times.append((time.perf_counter() - began) * 1000)
        figures = [one for values in (times, costs) for one in (statistics.median(values), percentile(values))]
        print(f"{name:42}" + "".join(f"{one:9.1f}" for one in figures), flush=True)


def percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


async def sizes(connection: asyncpg.Connection) -> None:
    for name in ("usage", "days", "user_blocks", "latency", "latency_days", "latency_blocks", "findings"):
        number, size = await connection.fetchrow(
            f"SELECT count(*), pg_size_pretty(pg_total_relation_size('analytics_{name}')) FROM analytics_{name}"  # noqa: S608
        )
        print(f"analytics_{name:14}{number:>12,} rows {size}")


async def make(traces: int, directory: Path) -> None:
    server = EmbeddedPostgres(directory / "postgres", settings=SERVER)
    url = await server.start()
    database = Database(SETTINGS)
    try:
        connection = await asyncpg.connect(url)
        await migrate.up(connection)
        await connection.close()
        await database.connect(url)
        await generate(url, database, traces)
    finally:
        await database.close()
        await server.stop()


async def run(options: argparse.Namespace, directory: Path) -> None:
    if not (directory / "postgres").exists():
        await make(options.traces, directory)
    if not options.rounds:
        return
    server = EmbeddedPostgres(directory / "postgres", settings={"shared_buffers": "512MB", "max_wal_size": "4GB"})
    url = await server.start()
    database, reading = Database(SETTINGS), Database(SETTINGS.model_copy(update={"pool_size": 1}))
    try:
        connection = await asyncpg.connect(url)
        await migrate.up(connection)
        await database.connect(url)
        await reading.connect(url)
        await Rollup(database, 0).make_blocks()  # as every replica does once an hour
        await sizes(connection)
        async with writer(url, options.rate) if options.rate else nullcontext():
            await measure(reading, options.rounds, options.only)
        await connection.close()
    finally:
        await reading.close()
        await database.close()
        await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument(
        "--rounds", type=int, default=20, help="how often each question is asked; 0: make the history only"
    )
    parser.add_argument("--rate", type=float, default=1000.0, help="traces per second meanwhile; 0: no writer")
    parser.add_argument("--only", default="", help="questions with this in their name")
    parser.add_argument("--keep", type=Path, help="directory of the database; used again if it is there")
    parser.add_argument("--write-to", help="only store traces at this URL, until ended: what `--rate` starts")
    options = parser.parse_args()
    if options.write_to:
        return asyncio.run(write(options.write_to, options.rate))
    with tempfile.TemporaryDirectory(prefix="sidegate-analytics-") as temporary:
        Path(temporary).chmod(0o711)
        asyncio.run(run(options, options.keep or Path(temporary)))
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
