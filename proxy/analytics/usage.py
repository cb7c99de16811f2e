"""Totals of a range and their parts by period, layer and model, exact to the moment.

The edges of a range are rounded to the nearest quarter of an hour; what that excluded or included in excess is summed
from traces and added or subtracted. The rounded range is divided, project by project, into whole calendar days and
parts of days at its ends. Days are read from sums of days, parts from sums of quarters; days of all users that are
whole in every project are read from the sums of all projects. For a single user there are no quarters, so edges are
rounded to the nearest start of a day. So a result is exact for every range, at a cost that depends only on the number
of requests near its edges.

A range that ends in the future is read to the end of its last day, as there can be no data yet.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from proxy.analytics.columns import filled, of_calls, of_requests
from proxy.analytics.figures import Question, Sums, TimeRange, Usage
from proxy.analytics.ranges import resolve, split, to_quarters
from proxy.db.transaction import Connection

# The start and end of the range in each project. $6 and $7 the start as a day or a time, $8 and $9 the end.
_EDGES: Final = """
    SELECT p.project_id, zone, coalesce($7, $6::date::timestamp AT TIME ZONE zone) AS since,
        CASE WHEN given <= now() THEN given ELSE
            (((given - interval '1 microsecond') AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone END AS until
    FROM project p CROSS JOIN LATERAL sidegate_zone(p.project_id) AS zone
    CROSS JOIN LATERAL (SELECT coalesce($9, ($8::date + 1)::timestamp AT TIME ZONE zone) AS given) AS e
"""

# OFFSET 0 keeps the planner from reading all rows of a kind at once: each day of each project is one look-up.
# $1 project, $6 to $9 as above, moved to quarters; $10 to $12 pieces: signs, beginnings and ends.
_CELLS: Final = filled("""
{projects}, span AS MATERIALIZED (
    SELECT e.project_id, s.*, greatest(first_day, oldest) AS first_read, least(past_day - 1, newest) AS last_read
    FROM ({edges}) AS e CROSS JOIN LATERAL sidegate_span(zone, since, until) s
    CROSS JOIN LATERAL (SELECT min(day) AS oldest, max(day) AS newest FROM analytics_usage u
        WHERE u.kind = 'd' AND u.project_id = e.project_id) AS kept
), piece AS MATERIALIZED (
    SELECT project_id, day, since, until
    FROM span CROSS JOIN LATERAL (VALUES (first_day - 1, head_since, head_until), (past_day, tail_since, tail_until))
        AS e(day, since, until)
    WHERE since < until
), common AS MATERIALIZED (
    SELECT max(first_day) AS first_day, min(past_day) AS past_day FROM span WHERE $1::text IS NULL
), cell AS (
    SELECT 1 AS sign, u.* FROM common c JOIN analytics_days u ON u.kind = 'a' AND u.project_id = ''
        AND u.day >= c.first_day AND u.day < c.past_day
    UNION ALL
    SELECT 1, u.* FROM common c CROSS JOIN span s
    CROSS JOIN LATERAL (SELECT s.first_read + n AS day FROM generate_series(0, s.last_read - s.first_read) AS n) AS own
    CROSS JOIN LATERAL (
        SELECT * FROM analytics_usage WHERE kind = 'd' AND project_id = s.project_id AND day = own.day OFFSET 0
    ) AS u
    WHERE (own.day >= c.first_day AND own.day < c.past_day) IS NOT TRUE
    UNION ALL
    SELECT 1, u.* FROM piece p JOIN analytics_usage u ON u.kind = 'q' AND u.project_id = p.project_id AND u.day = p.day
        AND u.user_id = '' AND u.quarter >= sidegate_quarter(p.since) AND u.quarter < p.until
    UNION ALL
    SELECT r.sign, u.* FROM unnest($10::int[], $11::timestamptz[], $12::timestamptz[]) AS r(sign, since, until)
    CROSS JOIN LATERAL sidegate_usage_of_piece($1, NULL, r.since, r.until) u
)
""").replace("{edges}", _EDGES)

# $6 the first day, $7 the last one.
_CELLS_OF_ALL: Final = """
WITH cell AS (
    SELECT 1 AS sign, * FROM analytics_days
    WHERE kind = 'a' AND project_id = coalesce($1, '') AND day >= $6::date AND day <= $7::date
)
"""

# $1 project, $6 to $9 as above, $10 user.
_CELLS_OF_USER: Final = filled("""
{projects of $10}, span AS MATERIALIZED (
    SELECT e.*, first_day, past_day, first_day::timestamp AT TIME ZONE zone AS first_moment,
        past_day::timestamp AT TIME ZONE zone AS past_moment
    FROM ({edges}) AS e
    CROSS JOIN LATERAL sidegate_nearest_day(since, zone) AS first_day
    CROSS JOIN LATERAL sidegate_nearest_day(until, zone) AS past_day
), rest AS MATERIALIZED (
    SELECT sign, r.since, r.until, array_agg(project_id) AS projects
    FROM span CROSS JOIN LATERAL (VALUES (1, span.since, first_moment), (-1, first_moment, span.since),
        (1, past_moment, span.until), (-1, span.until, past_moment)) AS r(sign, since, until)
    WHERE r.since < r.until GROUP BY sign, r.since, r.until
), cell AS (
    SELECT 1 AS sign, u.* FROM span s CROSS JOIN LATERAL (
        SELECT * FROM analytics_usage
        WHERE kind = 'u' AND user_id = $10 AND project_id = s.project_id AND day >= s.first_day AND day < s.past_day
        OFFSET 0
    ) AS u
    UNION ALL
    SELECT r.sign, u.* FROM rest r CROSS JOIN LATERAL sidegate_usage_of_piece($1, $10, r.since, r.until) u
    WHERE u.project_id = ANY (r.projects)
)
""").replace("{edges}", _EDGES)

# $2 layer, $3 model, $4 request type, $5 period.
_TOTALS: Final = filled("""
, chosen AS (
    SELECT *, date_trunc($5, day)::date AS period FROM cell
    WHERE ($2::text IS NULL OR layer = $2) AND ($3::text IS NULL OR model = $3)
        AND ($4::text IS NULL OR request_type = $4)
)
SELECT CASE WHEN grouping(period) = 0 THEN 'period' WHEN grouping(layer) = 0 THEN 'layer' ELSE 'model' END AS part,
    period, layer, model, {signed requests}, {signed calls}
FROM chosen
GROUP BY GROUPING SETS ((period), (layer), (model))
HAVING sum(sign * requests) > 0 OR sum(sign * calls) > 0
ORDER BY grouping(period, layer), period, call_cost_nanos DESC, layer, model
LIMIT 20000
""")


async def read_usage(connection: Connection, question: Question) -> Usage:
    """Return the sums of a range."""
    question, time_range = await resolve(connection, question)
    return _usage(time_range, question, await _read(connection, question))


async def _read(connection: Connection, question: Question) -> Sequence[Any]:
    since, until = question.since, question.until
    assert since is not None and until is not None
    filters = question.project_id, question.layer, question.model, question.request_type, question.period
    if question.user_id is not None:
        edges = *split(since), *split(until)
        return await connection.fetch(_CELLS_OF_USER + _TOTALS, *filters, *edges, question.user_id)
    if question.project_id is None and not isinstance(since, datetime) and not isinstance(until, datetime):
        return await connection.fetch(_CELLS_OF_ALL + _TOTALS, *filters, since, until)
    first, last, pieces = to_quarters(since, until, datetime.now(UTC))
    return await connection.fetch(
        _CELLS + _TOTALS,
        *filters,
        *split(first),
        *split(last),
        [piece.sign for piece in pieces],
        [piece.since for piece in pieces],
        [piece.until for piece in pieces],
    )


def _usage(time_range: TimeRange, question: Question, rows: Sequence[Any]) -> Usage:
    total = Sums()
    parts: dict[str, dict[Any, Sums]] = {"period": {}, "layer": {}, "model": {}}
    asked = {name for name in ("layer", "model") if getattr(question, name) is not None}
    for row in rows:
        part, name = row["part"], row[row["part"]]
        if part == "period":
            sums = _calls_of(row, asked) if asked else of_requests(row)
            total += sums
            parts[part][name] = sums
        elif name != "":
            parts[part][name] = _calls_of(row, asked | {part})
    return Usage(time_range, total, parts["period"], dict(sorted(parts["layer"].items())), parts["model"])


def _calls_of(row: Any, cut_by: set[str]) -> Sums:
    """Return the sums of calls. `cut_by`: layer, model or both; a request counts once in such a part."""
    return of_calls(row, row["pair_requests" if len(cut_by) > 1 else f"{next(iter(cut_by))}_requests"])
