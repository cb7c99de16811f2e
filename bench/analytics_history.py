"""A long history of traces for `bench.analytics`, made by the server itself.

Some days are made by dice, and their sums by the functions that a rebuild uses; the others are copies of them at other
dates, sums too. A day is filled as a table of its own and then becomes a partition, so that its indexes are made at
once and, with `wal_level = minimal`, its rows are written once. Rows are as wide as those of real requests without
captured contents.
"""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg

from proxy.analytics.rollup import Rollup
from proxy.db.pool import Database

DAYS, PROJECTS, USERS = 90, 20, 1_000
MODELS: Final = (
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
LAYERS: Final = ("L0", "L1", "L2", "L3", "L1", "L0", "L0", "L3", "L0", "L0")
SERVER: Final = {"fsync": "off", "max_wal_size": "4GB", "work_mem": "128MB", "maintenance_work_mem": "256MB"}
"""Settings of the server while it makes a history: nothing is lost that could not be made again."""

_TEMPLATES: Final = 4
_LANES: Final = 2
_TIMEOUT_S: Final = 900.0

# $1 the day, $2 how many, $3 models, $4 layers. Durations and sizes are spread as they are in life, over decades.
_TRACES: Final = """
INSERT INTO {table} (id, created_at, request_type, operation, method, path, user_id, project_id, model,
    response_model, upstream, outcome, status, stream, input_tokens, cached_input_tokens, output_tokens,
    reasoning_tokens, usage_source, total_cost, total_duration_ms, first_byte_ms, upstream_ms, overhead_ms,
    request_bytes, response_bytes,
    upstream_request_id, llm_calls, routing_decisions, policy, phases, quota, client)
SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid,
    to_timestamp(ms / 1000.0), type, 'chat.completions.create', 'POST', '/v1/chat/completions', 'user-' || person,
    'project-' || person % {projects}, model, model || '-2026-04-14', 'openai', outcome,
    CASE outcome WHEN 'ok' THEN 200 WHEN 'rejected' THEN 429 ELSE 500 END, true, given, given / 4, said, 0, 'provider',
    (given + 4 * said) * 0.000002, took, took / 3, took - 2, 2, given * 4, said * 200, 'req_' || noise,
    CASE WHEN outcome = 'rejected' THEN '[]' ELSE jsonb_build_array(jsonb_build_object(
        'index', 0, 'upstream', 'openai', 'model', model, 'responseModel', model || '-2026-04-14', 'responseId',
        'chatcmpl-' || substr(noise, 3), 'requestId', 'req_' || noise, 'layer', layer, 'why', 'first', 'status',
        CASE outcome WHEN 'ok' THEN 200 ELSE 500 END, 'inputTokens', given, 'cachedInputTokens', given / 4,
        'outputTokens', said, 'reasoningTokens', 0, 'usageSource', 'provider', 'priced', true, 'cost',
        ((given + 4 * said) * 0.000002)::text, 'startedMs', 1.5, 'firstByteMs', took / 3, 'durationMs', took - 2,
        'finishReasons', '["stop"]'::jsonb, 'responseBytes', said * 200, 'events', said)) END,
    jsonb_build_array(jsonb_build_object('reason', 'named', 'candidates', jsonb_build_array(jsonb_build_object(
        'upstream', 'openai', 'model', model, 'layer', layer)))),
    CASE WHEN finds THEN '{"version": "0f6c1b", "scanned": {"input": 1200, "output": 300}, "findings": [{"rule":
        "email", "category": "pii", "severity": "medium", "action": "redact", "direction": "input", "place":
        "messages[0].content", "start": 10, "end": 31}]}'::jsonb
        ELSE '{"version": "0f6c1b", "scanned": {"input": 1200, "output": 300}}' END,
    '{"identify": 0.1, "parse": 0.2, "scan_prompt": 0.4, "plan_route": 0.1, "reserve": 0.1, "dispatch": 300}',
    '{"window": 20391, "leases": [["01890a5d-ac96-774b-bcce-b302099a8057", 900, 1800000]]}',
    '{"userAgent": "OpenAI/Python 2.44.0", "sdk": "python", "retryCount": 0, "peer": "127.0.0.1"}'
FROM (
    SELECT ms, md5(ms::text || n) AS noise, ($3::text[])[pick] AS model, ($4::text[])[pick] AS layer,
        CASE WHEN pick = 10 THEN 'embeddings' WHEN kind < 0.15 THEN 'responses' ELSE 'chat' END AS type,
        CASE WHEN luck < 0.93 THEN 'ok' WHEN luck < 0.96 THEN 'rejected' ELSE 'upstream_error' END AS outcome,
        floor(power(person, 2) * {users})::int AS person, (40 * exp(5 * size))::bigint AS given,
        (5 * exp(5 * length))::bigint AS said,
        round((60 * exp(2.2 * sqrt(-2 * ln(1 - slow)) * cos(6.2831853 * turn) * 0.4 + pick * 0.15))::numeric, 3)::float8
            AS took, finds < 0.02 AS finds
    FROM (
        SELECT n, (extract(epoch FROM $1::date::timestamp AT TIME ZONE 'UTC') * 1000)::bigint
                + (random() * 86399000)::bigint AS ms,
            1 + floor(power(random(), 2) * 9.99)::int AS pick, random() AS kind, random() AS luck,
            random() AS person, random() AS size, random() AS length, random() * 0.9999 AS slow, random() AS turn,
            random() AS finds
        FROM generate_series(1, $2::int) AS n
    ) AS dice
) AS request
ORDER BY ms
""".replace("{projects}", str(PROJECTS)).replace("{users}", str(USERS))
# $1 the day to copy, $2 by how many days later.
_COPY: Final = """
INSERT INTO {table} ({columns})
SELECT (lpad(to_hex((extract(epoch FROM created_at) * 1000)::bigint + $2::int * 86400000::bigint), 12, '0')
        || substr(replace(id::text, '-', ''), 13))::uuid, created_at + $2::int * interval '1 day', {others}
FROM request_traces WHERE created_at >= $1::date::timestamp AT TIME ZONE 'UTC'
    AND created_at < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
"""
# $1 how many days have been made by dice, $2 how many days there are; both end with yesterday.
_COPY_SUMS: Final = """
INSERT INTO {table} ({columns})
SELECT {shifted} FROM {table} AS template
CROSS JOIN LATERAL (SELECT -n * $1::int AS days FROM generate_series(1, $2::int / $1::int) AS n) AS earlier
WHERE day + days >= current_date - $2::int
"""
_COARSE: Final = (
    "TRUNCATE analytics_days, analytics_latency_days",
    "INSERT INTO analytics_days SELECT * FROM sidegate_usage_days('-infinity', 'infinity')",
    "INSERT INTO analytics_latency_days SELECT * FROM sidegate_latency_days('-infinity', 'infinity')",
)
_TABLE: Final = "CREATE TABLE {table} (LIKE request_traces INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
_ATTACH: Final = (
    "ALTER TABLE request_traces ATTACH PARTITION {table} FOR VALUES FROM ('{day} 00:00+00') TO ('{past} 00:00+00')"
)
_SUMS: Final = (
    "INSERT INTO analytics_usage SELECT * FROM sidegate_usage(NULL, NULL, $1, $2)",
    "INSERT INTO analytics_latency SELECT * FROM sidegate_latency(NULL, NULL, $1, $2)",
    "INSERT INTO analytics_findings SELECT * FROM sidegate_findings(NULL, $1, $2)",
)


async def generate(url: str, database: Database, traces: int) -> None:
    """Fill an empty, migrated database with `traces` over the `DAYS` before today; prints how that goes."""
    lanes = [await asyncpg.connect(url) for _ in range(_LANES)]
    today = datetime.now(UTC).date()
    began = time.monotonic()
    await lanes[0].execute("SELECT setseed(0.5)")
    templates = [today - timedelta(days=age) for age in range(1, _TEMPLATES + 1)]
    for day in templates:
        await _add(lanes[0], day, _TRACES, day, traces // DAYS, MODELS, LAYERS)
        since = datetime.combine(day, datetime.min.time(), UTC)
        for statement in _SUMS:
            await lanes[0].execute(statement, since, since + timedelta(days=1), timeout=_TIMEOUT_S)
    print(f"{_TEMPLATES} days made in {time.monotonic() - began:.0f} s", flush=True)
    columns = await _columns(lanes[0], "request_traces", "id", "created_at")
    copy = _COPY.format(table="{table}", columns=", ".join(["id", "created_at", *columns]), others=", ".join(columns))
    ages = iter(range(_TEMPLATES + 1, DAYS + 1))

    async def work(connection: asyncpg.Connection) -> None:
        for age in ages:
            template, day = templates[(age - 1) % _TEMPLATES], today - timedelta(days=age)
            await _add(connection, day, copy, template, (day - template).days)
            if age % 10 == 0:
                print(f"{age} days made in {time.monotonic() - began:.0f} s", flush=True)

    await asyncio.gather(*(work(connection) for connection in lanes))
    await _copy_sums(lanes[0])
    await Rollup(database, 0).make_blocks()
    print(f"{traces:,} traces and their sums made in {time.monotonic() - began:.0f} s", flush=True)
    await lanes[0].execute("VACUUM ANALYZE", timeout=_TIMEOUT_S)
    for connection in lanes:
        await connection.close()
    began = time.monotonic()
    wrong = sum(row.wrong for row in await Rollup(database, 0).check(today - timedelta(days=DAYS // 2), None))
    print(f"one day checked in {time.monotonic() - began:.1f} s: {wrong} sums differ", flush=True)


async def _add(connection: asyncpg.Connection, day: date, statement: str, *parameters: object) -> None:
    table = f"request_traces_p{day:%Y%m%d}"
    async with connection.transaction():
        await connection.execute(_TABLE.replace("{table}", table))
        await connection.execute(statement.replace("{table}", table), *parameters, timeout=_TIMEOUT_S)
    await connection.execute(_ATTACH.format(table=table, day=day, past=day + timedelta(days=1)), timeout=_TIMEOUT_S)


async def _copy_sums(connection: asyncpg.Connection) -> None:
    for table in ("analytics_usage", "analytics_latency", "analytics_findings"):
        columns = await _columns(connection, table)
        at = {"day": "day + days", "quarter": "quarter + days * interval '1 day'"}
        shifted = ", ".join(at.get(name, name) for name in columns)
        copy = _COPY_SUMS.format(table=table, columns=", ".join(columns), shifted=shifted)
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.execute(copy, _TEMPLATES, DAYS, timeout=_TIMEOUT_S)
        await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    for statement in _COARSE:
        await connection.execute(statement, timeout=_TIMEOUT_S)


async def _columns(connection: asyncpg.Connection, table: str, *but: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attname <> ALL ($2::text[])",
        table,
        but,
    )
    return [row["attname"] for row in rows]
