"""Calls over time, by model or by layer, over whole days.

The most expensive names are listed one by one and the rest together, so a result stays small however many names clients
use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from proxy.analytics.columns import filled, of_calls
from proxy.analytics.figures import Question, Sums, TimeRange
from proxy.analytics.ranges import whole_days
from proxy.db.transaction import Connection

Split = Literal["model", "layer"]

# $1 project, $2 the first day, $3 the day after the last, $4 user, $5 request type, $6 period, $7 what splits.
_SERIES: Final = filled("""
{projects of $4}
SELECT date_trunc($6, day)::date AS period, CASE WHEN $7 = 'layer' THEN layer ELSE model END AS name,
    sum(calls)::bigint AS calls, {calls}
FROM (
    SELECT * FROM analytics_days
    WHERE kind = 'a' AND project_id = '' AND day >= $2 AND day < $3 AND $1::text IS NULL AND $4::text IS NULL
    UNION ALL
    SELECT * FROM analytics_usage
    WHERE kind = 'd' AND project_id = $1 AND day >= $2 AND day < $3 AND user_id = '' AND $1 IS NOT NULL AND $4 IS NULL
    UNION ALL
    SELECT u.* FROM project p CROSS JOIN LATERAL (
        SELECT * FROM analytics_usage
        WHERE kind = 'u' AND user_id = $4 AND project_id = p.project_id AND day >= $2 AND day < $3
        OFFSET 0
    ) AS u
    WHERE $4 IS NOT NULL
) AS cell
WHERE layer <> '' AND ($5::text IS NULL OR request_type = $5)
GROUP BY 1, 2 HAVING sum(calls) > 0
ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class Series:
    """Sums of calls over time. Periods without calls are absent."""

    time_range: TimeRange
    by_name: Mapping[str, Mapping[date, Sums]]
    """The most expensive names first."""
    other: Mapping[date, Sums]
    """All further names together; here a request counts once per name."""


async def read_series(connection: Connection, question: Question, split: Split, most_names: int) -> Series:
    """Return sums by period and name, of at most `most_names` names."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(
        _SERIES,
        question.project_id,
        days.first,
        days.past,
        question.user_id,
        question.request_type,
        question.period,
        split,
    )
    return _series(days.time_range, rows, f"{split}_requests", most_names)


def _series(time_range: TimeRange, rows: Sequence[Any], requests: str, most_names: int) -> Series:
    by_name: dict[str, dict[date, Sums]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["period"]] = of_calls(row, row[requests])
    ranked = sorted(by_name, key=lambda name: _weight(by_name[name]), reverse=True)
    other: dict[date, Sums] = {}
    for name in ranked[most_names:]:
        for period, sums in by_name[name].items():
            other[period] = other.get(period, Sums()) + sums
    return Series(time_range, {name: by_name[name] for name in ranked[:most_names]}, dict(sorted(other.items())))


def _weight(points: Mapping[date, Sums]) -> tuple[Any, ...]:
    whole = sum(points.values(), Sums())
    return whole.cost, whole.tokens, whole.calls
