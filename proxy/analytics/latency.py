"""Durations: percentiles from histograms, over whole days.

Past days are read from blocks of up to 64 days, the others one by one.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from proxy.analytics.figures import Latency, Measure, Percentiles, Question, TimeRange, percentiles
from proxy.analytics.ranges import whole_days
from proxy.db.transaction import Connection

# $1 project, $2 the first day, $3 the day after the last, $4 request type. Added up by all names first: that reads each
# row once, and leaves few for the two ways in which they are added up further.
_LATENCY: Final = """
WITH part AS MATERIALIZED (
    SELECT * FROM sidegate_blocks($2, $3)
), cell AS MATERIALIZED (
    SELECT layer, model, measure, bucket, sum(number)::bigint AS number
    FROM (
        SELECT layer, model, request_type, measure, cell.bucket, cell.number
        FROM part JOIN analytics_latency_blocks b USING (days, first_day)
        CROSS JOIN LATERAL unnest(buckets, numbers) AS cell(bucket, number)
        WHERE part.days > 1 AND is_all = ($1::text IS NULL) AND project_id = coalesce($1, '')
        UNION ALL
        SELECT layer, model, request_type, measure, bucket, number
        FROM part JOIN analytics_latency ON $1::text IS NOT NULL AND days = 1 AND project_id = $1
            AND day >= first_day AND day < past_day
        UNION ALL
        SELECT layer, model, request_type, measure, bucket, number
        FROM part JOIN analytics_latency_days ON $1::text IS NULL AND days = 1 AND kind = 'D' AND project_id = ''
            AND day >= first_day AND day < past_day
    ) AS rows
    WHERE $4::text IS NULL OR request_type = $4
    GROUP BY layer, model, measure, bucket
)
SELECT layer, model, measure, bucket, sum(number)::bigint AS number
FROM cell
GROUP BY GROUPING SETS ((layer, measure, bucket), (model, measure, bucket))
HAVING sum(number) > 0
ORDER BY sum(sum(number)) OVER (PARTITION BY layer, model) DESC, layer, model, measure
LIMIT 100000
"""

# Histograms have no users: their latest requests are measured. Sums tell since which day there are enough, so that only
# traces of those days are planned for and read. The range of all projects ends with a day of UTC, so the last days of
# projects are not counted: part of them may be beyond it. $5 user, $6 how many.
_SINCE_DAY_OF_USER: Final = """
SELECT day FROM (
    SELECT day, sum(sum(requests)) OVER (ORDER BY day DESC) AS requests FROM analytics_usage
    WHERE kind = 'u' AND user_id = $5 AND day >= $2 AND day < $3::date - CASE WHEN $1::text IS NULL THEN 1 ELSE 0 END
        AND ($1 IS NULL OR project_id = $1) AND ($4::text IS NULL OR request_type = $4)
    GROUP BY day
) AS sums WHERE requests >= $6 ORDER BY day DESC LIMIT 1
"""

# $2 and $3 are moments here.
_LATENCY_OF_USER: Final = """
SELECT '' AS layer, NULL AS model, measure, sidegate_bucket(us) AS bucket, count(*) AS number
FROM (
    SELECT total_duration_ms, first_byte_ms FROM request_traces
    WHERE created_at >= $2 AND created_at < $3 AND user_id = $5 AND ($1::text IS NULL OR project_id = $1)
        AND ($4::text IS NULL OR request_type = $4)
    ORDER BY created_at DESC LIMIT $6
) AS t CROSS JOIN LATERAL (VALUES ('duration', sidegate_microseconds(total_duration_ms)),
    ('first_byte', sidegate_microseconds(first_byte_ms))) AS m(measure, us)
WHERE us IS NOT NULL
GROUP BY measure, sidegate_bucket(us)
"""


USER_REQUESTS: Final = 5_000
"""How many of a user's latest requests are measured: more would change percentiles little, but take long."""


async def read_latency(connection: Connection, question: Question) -> Latency:
    """Return percentiles; by layer and model only without a user."""
    days = await whole_days(connection, question)
    project, kind = question.project_id, question.request_type
    if question.user_id is None:
        rows = await connection.fetch(_LATENCY, project, days.first, days.past, kind)
    else:
        user = kind, question.user_id, USER_REQUESTS
        day = await connection.fetchval(_SINCE_DAY_OF_USER, project, days.first, days.past, *user)
        start, end = days.time_range.start, days.time_range.end
        if day is not None:  # it begins up to fourteen hours before that of UTC
            start = max(start, datetime.combine(day, time(), UTC) - timedelta(hours=14))
        rows = await connection.fetch(_LATENCY_OF_USER, project, start, end, *user)
    return _latency(days.time_range, (tuple(row.values()) for row in rows))


def _latency(time_range: TimeRange, rows: Iterable[tuple[Any, ...]]) -> Latency:
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
