"""The questions of analytics: all SQL that reads `analytics_usage` and `analytics_latency`.

A range is cut, project by project, into whole calendar days, and for `usage` the pieces of days at its ends into whole
quarters of an hour and the rest. Days and quarters are read from the sums; only the rest, or a piece of a day of one
user, is summed from traces. So an answer is exact for every range, and its cost does not depend on how many requests
there were.

A range that ends after the present moment is read to the end of its last day: nothing can be there yet.

Rule of the file: every statement is a constant; values are parameters. Failure mode: errors of asyncpg become
`DatabaseUnavailable` where the connection came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from proxy.analytics.figures import (
    PERIODS,
    Edge,
    Expensive,
    Latency,
    Measure,
    Percentiles,
    Question,
    Share,
    Sums,
    TimeRange,
    Usage,
    percentiles,
)
from proxy.db.pool import Connection, Database

_DAY: Final = timedelta(days=1)
_NANO: Final = -9

# $1 project, $2 and $3 the start as a day or a moment, $4 and $5 the end, $6 period, $7 number of periods.
_RANGE = """
WITH edge AS (
    SELECT zone, coalesce($5, ($4::date + 1)::timestamp AT TIME ZONE zone,
        ((now() AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone) AS until
    FROM sidegate_zone($1) AS zone
)
SELECT coalesce($3, $2::date::timestamp AT TIME ZONE zone,
    (date_trunc($6, (until - interval '1 microsecond') AT TIME ZONE zone) - ($7 - 1) * ('1 ' || $6)::interval)
        AT TIME ZONE zone) AS since, until
FROM edge
"""

# Without a project those that have sums: walks the index from name to name.
_USAGE = """
WITH RECURSIVE known AS (
    (SELECT project_id FROM analytics_usage WHERE $1::text IS NULL AND kind = 'd' ORDER BY project_id LIMIT 1)
    UNION ALL
    SELECT (SELECT u.project_id FROM analytics_usage u WHERE u.kind = 'd' AND u.project_id > k.project_id
        ORDER BY u.project_id LIMIT 1)
    FROM known k WHERE k.project_id IS NOT NULL
), project AS MATERIALIZED (
    SELECT project_id FROM known WHERE project_id IS NOT NULL UNION ALL SELECT $1 WHERE $1 IS NOT NULL
), span AS MATERIALIZED (
    SELECT p.project_id, s.*, greatest(first_day, oldest) AS first_read, least(past_day - 1, newest) AS last_read
    FROM project p CROSS JOIN LATERAL (SELECT sidegate_zone(p.project_id) AS zone) z
    CROSS JOIN LATERAL (SELECT coalesce($3, $2::date::timestamp AT TIME ZONE zone) AS since,
        coalesce($5, ($4::date + 1)::timestamp AT TIME ZONE zone) AS until) e
    CROSS JOIN LATERAL sidegate_span(zone, since, CASE WHEN until <= now() THEN until
        ELSE (((until - interval '1 microsecond') AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone END) s
    CROSS JOIN LATERAL (SELECT min(day) AS oldest, max(day) AS newest FROM analytics_usage u
        WHERE u.kind = 'd' AND u.project_id = p.project_id) AS kept
), piece AS MATERIALIZED (
    SELECT project_id, day, since, until,
        CASE WHEN $6::text IS NULL THEN sidegate_quarter(since + interval '15 minutes' - interval '1 microsecond')
            ELSE until END AS first_quarter, sidegate_quarter(until) AS past_quarter
    FROM span CROSS JOIN LATERAL (VALUES (first_day - 1, head_since, head_until), (past_day, tail_since, tail_until))
        AS e(day, since, until)
    WHERE since < until
), rest AS MATERIALIZED (
    SELECT project_id, e.since, e.until FROM piece CROSS JOIN LATERAL (VALUES
        (piece.since, CASE WHEN first_quarter < past_quarter THEN first_quarter ELSE piece.until END),
        (CASE WHEN first_quarter < past_quarter THEN past_quarter ELSE piece.until END, piece.until)) AS e(since, until)
    WHERE e.since < e.until
), cell AS (
    SELECT u.* FROM span s CROSS JOIN LATERAL generate_series(0, last_read - first_read) AS n
    JOIN analytics_usage u ON u.kind = CASE WHEN $6::text IS NULL THEN 'd' ELSE 'u' END::"char"
        AND u.project_id = s.project_id AND u.day = s.first_read + n AND u.user_id = coalesce($6, '')
    UNION ALL
    SELECT u.* FROM piece p JOIN analytics_usage u ON u.kind = 'q' AND u.project_id = p.project_id AND u.day = p.day
        AND u.user_id = '' AND u.quarter >= p.first_quarter AND u.quarter < p.past_quarter
    WHERE p.first_quarter < p.past_quarter
    UNION ALL
    SELECT u.* FROM rest r CROSS JOIN LATERAL sidegate_usage(r.project_id, $6, r.since, r.until) u
    WHERE u.kind = CASE WHEN $6::text IS NULL THEN 'd' ELSE 'u' END::"char"
), chosen AS (
    SELECT *, date_trunc($10, day)::date AS period FROM cell
    WHERE ($7::text IS NULL OR layer = $7) AND ($8::text IS NULL OR model = $8)
        AND ($9::text IS NULL OR request_type = $9)
)
SELECT CASE WHEN grouping(period) = 0 THEN 'period' WHEN grouping(layer) = 0 THEN 'layer' ELSE 'model' END AS part,
    period, layer, model,
    sum(requests)::bigint AS requests, sum(errors)::bigint AS errors, sum(rejected)::bigint AS rejected,
    sum(aborted)::bigint AS aborted, sum(cache_hits)::bigint AS cache_hits, sum(input_tokens)::bigint AS input_tokens,
    sum(cached_input_tokens)::bigint AS cached_input_tokens, sum(output_tokens)::bigint AS output_tokens,
    sum(cost_nanos)::bigint AS cost_nanos, sum(timed)::bigint AS timed, sum(duration_us)::bigint AS duration_us,
    sum(layer_requests)::bigint AS layer_requests, sum(model_requests)::bigint AS model_requests,
    sum(pair_requests)::bigint AS pair_requests, sum(calls)::bigint AS calls, sum(call_errors)::bigint AS call_errors,
    sum(call_input_tokens)::bigint AS call_input_tokens, sum(call_cached_tokens)::bigint AS call_cached_tokens,
    sum(call_output_tokens)::bigint AS call_output_tokens, sum(call_cost_nanos)::bigint AS call_cost_nanos,
    sum(call_timed)::bigint AS call_timed, sum(call_duration_us)::bigint AS call_duration_us
FROM chosen
GROUP BY GROUPING SETS ((period), (layer), (model))
ORDER BY grouping(period, layer), period, call_cost_nanos DESC, layer, model
LIMIT 20000
"""

_LATENCY = """
SELECT layer, model, measure, bucket, sum(number)::bigint AS number
FROM analytics_latency
WHERE ($1::text IS NULL OR project_id = $1) AND day >= $2 AND day < $3 AND ($4::text IS NULL OR request_type = $4)
GROUP BY GROUPING SETS ((layer, measure, bucket), (model, measure, bucket))
ORDER BY sum(sum(number)) OVER (PARTITION BY layer, model) DESC, layer, model
LIMIT 100000
"""

# Histograms have no users: one user's requests are few enough to be counted.
_LATENCY_OF_USER = """
SELECT '' AS layer, NULL AS model, measure, sidegate_bucket(us) AS bucket, count(*) AS number
FROM (
    SELECT total_duration_ms, first_byte_ms FROM request_traces
    WHERE created_at >= $2 AND created_at < $3 AND user_id = $5 AND ($1::text IS NULL OR project_id = $1)
        AND ($4::text IS NULL OR request_type = $4)
) AS t CROSS JOIN LATERAL (VALUES ('duration', sidegate_microseconds(total_duration_ms)),
    ('first_byte', sidegate_microseconds(first_byte_ms))) AS m(measure, us)
WHERE us IS NOT NULL
GROUP BY measure, sidegate_bucket(us)
"""

_USERS = """
SELECT user_id AS name, sum(requests)::bigint AS requests, sum(calls)::bigint AS calls, sum(errors)::bigint AS errors,
    sum(rejected)::bigint AS rejected, sum(aborted)::bigint AS aborted, sum(cache_hits)::bigint AS cache_hits,
    sum(input_tokens)::bigint AS input_tokens, sum(cached_input_tokens)::bigint AS cached_input_tokens,
    sum(output_tokens)::bigint AS output_tokens, sum(cost_nanos)::bigint AS cost_nanos, sum(timed)::bigint AS timed,
    sum(duration_us)::bigint AS duration_us
FROM analytics_usage
WHERE kind = 'u' AND ($1::text IS NULL OR project_id = $1) AND day >= $2 AND day < $3
    AND ($4::text IS NULL OR request_type = $4)
GROUP BY user_id ORDER BY cost_nanos DESC, user_id LIMIT $5
"""

_PROJECTS = """
SELECT project_id AS name, sum(requests)::bigint AS requests, sum(calls)::bigint AS calls,
    sum(errors)::bigint AS errors, sum(rejected)::bigint AS rejected, sum(aborted)::bigint AS aborted,
    sum(cache_hits)::bigint AS cache_hits,
    sum(input_tokens)::bigint AS input_tokens, sum(cached_input_tokens)::bigint AS cached_input_tokens,
    sum(output_tokens)::bigint AS output_tokens, sum(cost_nanos)::bigint AS cost_nanos, sum(timed)::bigint AS timed,
    sum(duration_us)::bigint AS duration_us
FROM analytics_usage
WHERE kind = 'd' AND ($1::text IS NULL OR project_id = $1) AND day >= $2 AND day < $3
    AND ($4::text IS NULL OR request_type = $4)
GROUP BY project_id ORDER BY cost_nanos DESC, project_id LIMIT $5
"""

# A moment inside a day stands for that day.
_DAYS = """
SELECT (($1::timestamptz AT TIME ZONE zone)::date) AS first,
    (($2::timestamptz - interval '1 microsecond') AT TIME ZONE zone)::date + 1 AS past,
    (($1::timestamptz AT TIME ZONE zone)::date)::timestamp AT TIME ZONE zone AS since,
    ((($2::timestamptz - interval '1 microsecond') AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone AS until
FROM sidegate_zone($3) AS zone
"""

_EXPENSIVE = """
SELECT id::text, created_at, project_id, user_id, request_type, model, outcome, jsonb_array_length(llm_calls),
    input_tokens, output_tokens, total_cost, total_duration_ms
FROM request_traces
WHERE created_at >= $2 AND created_at < $3 AND total_cost > 0
    AND ($1::text IS NULL OR project_id = $1)
    AND ($4::text IS NULL OR user_id = $4)
    AND ($5::text IS NULL OR model = $5)
    AND ($6::text IS NULL OR request_type = $6)
ORDER BY total_cost DESC, created_at DESC, id
LIMIT $7
"""


@dataclass(frozen=True, slots=True)
class Days:
    """The whole days of a range: `past` is the first one after it."""

    first: date
    past: date
    time_range: TimeRange


class Analytics:
    """Answers questions. Takes a connection of the pool per call; every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, question: Question) -> Usage:
        """Return the sums of a range, in all and by period, layer and model, exact to the moment."""
        async with self._database.acquire() as connection:
            question, time_range = await _resolve(connection, question)
            rows = await connection.fetch(
                _USAGE,
                question.project_id,
                *_split(question.since),
                *_split(question.until),
                question.user_id,
                question.layer,
                question.model,
                question.request_type,
                question.period,
            )
        return _usage(time_range, question, rows)

    async def latency(self, question: Question) -> Latency:
        """Return percentiles over the whole days of a range; by layer and model only where no user is named."""
        async with self._database.acquire() as connection:
            days = await whole_days(connection, question)
            project, kind = question.project_id, question.request_type
            if question.user_id is None:
                rows = await connection.fetch(_LATENCY, project, days.first, days.past, kind)
            else:
                start, end = days.time_range.start, days.time_range.end
                rows = await connection.fetch(_LATENCY_OF_USER, project, start, end, kind, question.user_id)
        return _latency(days.time_range, [tuple(row.values()) for row in rows])

    async def users(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the users of whole days who spent most."""
        return await self._shares(_USERS, question, limit)

    async def projects(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the projects that spent most in whole days, each by its own."""
        return await self._shares(_PROJECTS, question, limit)

    async def expensive(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Expensive]]:
        """Return the dearest requests whose traces are still there."""
        async with self._database.acquire() as connection:
            question, time_range = await _resolve(connection, question)
            rows = await connection.fetch(
                _EXPENSIVE,
                question.project_id,
                time_range.start,
                time_range.end,
                question.user_id,
                question.model,
                question.request_type,
                limit,
            )
        return time_range, [Expensive(*row.values()) for row in rows]

    async def _shares(self, statement: str, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        async with self._database.acquire() as connection:
            days = await whole_days(connection, question)
            rows = await connection.fetch(
                statement, question.project_id, days.first, days.past, question.request_type, limit
            )
        return days.time_range, [Share(row["name"], _of_requests(row)) for row in rows]


async def _resolve(connection: Connection, question: Question) -> tuple[Question, TimeRange]:
    """Fill in what the question leaves open. Without a project the range shown is that of UTC."""
    row = await connection.fetchrow(
        _RANGE, question.project_id, *_split(question.since), *_split(question.until), question.period, PERIODS
    )
    assert row is not None
    since, until = row["since"], row["until"]
    if question.project_id is None:  # each project has days of its own
        return (
            replace(question, since=question.since or since.date(), until=question.until or until.date() - _DAY),
            TimeRange(since, until),
        )
    return replace(question, since=since, until=until), TimeRange(since, until)


async def whole_days(connection: Connection, question: Question) -> Days:
    """Return the whole days that a question touches; a moment inside a day stands for that day."""
    _, time_range = await _resolve(connection, question)
    row = await connection.fetchrow(_DAYS, time_range.start, time_range.end, question.project_id)
    assert row is not None
    return Days(row["first"], row["past"], TimeRange(row["since"], row["until"]))


def _split(edge: Edge | None) -> tuple[date | None, datetime | None]:
    """Return an edge as two parameters: a day or a moment."""
    return (None, edge) if isinstance(edge, datetime) else (edge, None)


def _usage(time_range: TimeRange, question: Question, rows: Sequence[Any]) -> Usage:
    total = Sums()
    parts: dict[str, dict[Any, Sums]] = {"period": {}, "layer": {}, "model": {}}
    asked = {name for name in ("layer", "model") if getattr(question, name) is not None}
    for row in rows:
        part, name = row["part"], row[row["part"]]
        if part == "period":
            sums = _of_calls(row, asked) if asked else _of_requests(row)
            total += sums
            parts[part][name] = sums
        elif name != "":
            parts[part][name] = _of_calls(row, asked | {part})
    return Usage(time_range, total, parts["period"], dict(sorted(parts["layer"].items())), parts["model"])


def _of_requests(row: Any) -> Sums:
    return Sums(
        requests=row["requests"],
        calls=row["calls"],
        errors=row["errors"],
        rejected=row["rejected"],
        aborted=row["aborted"],
        cache_hits=row["cache_hits"],
        input_tokens=row["input_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        output_tokens=row["output_tokens"],
        cost=_dollars(row["cost_nanos"]),
        timed=row["timed"],
        duration_us=row["duration_us"],
    )


def _of_calls(row: Any, cut_by: set[str]) -> Sums:
    """Return the sums of calls. `cut_by`: layer, model or both: a request counts once in such a part."""
    return of_calls(row, row["pair_requests" if len(cut_by) > 1 else f"{next(iter(cut_by))}_requests"])


def of_calls(row: Any, requests: int) -> Sums:
    """Return the sums of calls. `requests`: those that made at least one of them."""
    return Sums(
        requests=requests,
        calls=row["calls"],
        errors=row["call_errors"],
        input_tokens=row["call_input_tokens"],
        cached_input_tokens=row["call_cached_tokens"],
        output_tokens=row["call_output_tokens"],
        cost=_dollars(row["call_cost_nanos"]),
        timed=row["call_timed"],
        duration_us=row["call_duration_us"],
    )


def _dollars(nanos: int) -> Decimal:
    return Decimal(nanos).scaleb(_NANO)


def _latency(time_range: TimeRange, rows: Sequence[tuple[Any, ...]]) -> Latency:
    counts: dict[tuple[str | None, str | None, Measure], dict[int, int]] = {}
    for layer, model, measure, bucket, number in rows:
        counts.setdefault((layer, model, measure), {})[bucket] = number
    total: dict[Measure, Percentiles] = {}
    by_layer: dict[str, dict[Measure, Percentiles]] = {}
    by_model: dict[str, dict[Measure, Percentiles]] = {}
    for (layer, model, measure), buckets in counts.items():
        if layer == "":
            total[measure] = percentiles(buckets)
        elif layer is not None:
            by_layer.setdefault(layer, {})[measure] = percentiles(buckets)
        elif model:
            by_model.setdefault(model, {})[measure] = percentiles(buckets)
    return Latency(time_range, total, by_layer, by_model)
