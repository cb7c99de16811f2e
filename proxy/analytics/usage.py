"""Totals of a range and their parts by period, layer and model, exact to the moment.

A range is cut, project by project, into whole calendar days, and the pieces of days at its ends into whole quarters of
an hour and the rest. Days and quarters are read from the sums; only the rest, or a piece of a day of one user, is
summed from traces. Days of everybody that are whole in every project are read from the sums of all projects. So an
answer is exact for every range, and its cost does not depend on how many requests there were.

A range that ends after the present moment is read to the end of its last day: nothing can be there yet.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from proxy.analytics.columns import filled, of_calls, of_requests
from proxy.analytics.figures import Question, Sums, TimeRange, Usage
from proxy.analytics.ranges import resolve, split
from proxy.db.pool import Connection

# OFFSET 0 keeps the planner from reading all rows of a kind at once: each day of each project is one look-up.
# $1 project, $2 and $3 the start as a day or a moment, $4 and $5 the end, $6 user.
_CELLS: Final = filled("""
{projects}, span AS MATERIALIZED (
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
), common AS MATERIALIZED (
    SELECT max(first_day) AS first_day, min(past_day) AS past_day FROM span WHERE $1::text IS NULL AND $6::text IS NULL
), cell AS (
    SELECT u.* FROM common c JOIN analytics_sums u ON u.kind = 'a' AND u.project_id = '' AND u.day >= c.first_day
        AND u.day < c.past_day
    UNION ALL
    SELECT u.* FROM common c CROSS JOIN span s
    CROSS JOIN LATERAL (SELECT s.first_read + n AS day FROM generate_series(0, s.last_read - s.first_read) AS n) AS own
    CROSS JOIN LATERAL (
        SELECT * FROM analytics_usage WHERE kind = CASE WHEN $6::text IS NULL THEN 'd' ELSE 'u' END::"char"
            AND project_id = s.project_id AND day = own.day AND user_id = coalesce($6, '')
        OFFSET 0
    ) AS u
    WHERE (own.day >= c.first_day AND own.day < c.past_day) IS NOT TRUE
    UNION ALL
    SELECT u.* FROM piece p JOIN analytics_usage u ON u.kind = 'q' AND u.project_id = p.project_id AND u.day = p.day
        AND u.user_id = '' AND u.quarter >= p.first_quarter AND u.quarter < p.past_quarter
    WHERE p.first_quarter < p.past_quarter
    UNION ALL
    SELECT u.* FROM (SELECT since, until, array_agg(project_id) AS projects FROM rest GROUP BY since, until) AS r
    CROSS JOIN LATERAL sidegate_usage($1, $6, r.since, r.until) u
    WHERE u.kind = CASE WHEN $6::text IS NULL THEN 'd' ELSE 'u' END::"char" AND u.project_id = ANY (r.projects)
)
""")

# Takes the same parameters: no project, days, and no user.
_CELLS_OF_ALL: Final = """
WITH cell AS (
    SELECT * FROM analytics_sums
    WHERE kind = 'a' AND project_id = coalesce($1, '') AND day >= $2::date AND day <= $4::date
        AND $3::timestamptz IS NULL AND $5::timestamptz IS NULL AND $6::text IS NULL
)
"""

# $7 layer, $8 model, $9 request type, $10 period.
_TOTALS: Final = filled("""
, chosen AS (
    SELECT *, date_trunc($10, day)::date AS period FROM cell
    WHERE ($7::text IS NULL OR layer = $7) AND ($8::text IS NULL OR model = $8)
        AND ($9::text IS NULL OR request_type = $9)
)
SELECT CASE WHEN grouping(period) = 0 THEN 'period' WHEN grouping(layer) = 0 THEN 'layer' ELSE 'model' END AS part,
    period, layer, model, {requests}, {calls}
FROM chosen
GROUP BY GROUPING SETS ((period), (layer), (model))
HAVING sum(requests) > 0 OR sum(calls) > 0
ORDER BY grouping(period, layer), period, call_cost_nanos DESC, layer, model
LIMIT 20000
""")


async def read_usage(connection: Connection, question: Question) -> Usage:
    """Return the sums of a range."""
    question, time_range = await resolve(connection, question)
    whole = not isinstance(question.since, datetime) and not isinstance(question.until, datetime)
    of_all = whole and question.project_id is None and question.user_id is None
    rows = await connection.fetch(
        (_CELLS_OF_ALL if of_all else _CELLS) + _TOTALS,
        question.project_id,
        *split(question.since),
        *split(question.until),
        question.user_id,
        question.layer,
        question.model,
        question.request_type,
        question.period,
    )
    return _usage(time_range, question, rows)


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
    """Return the sums of calls. `cut_by`: layer, model or both: a request counts once in such a part."""
    return of_calls(row, row["pair_requests" if len(cut_by) > 1 else f"{next(iter(cut_by))}_requests"])
