"""Calls over time, by model or by layer: all SQL that reads sums for charts.

Whole days only. Of many names the dearest are told one by one and the rest together, so an answer stays small however
many names clients come up with.

Rule of the file: every statement is a constant; values are parameters. Failure mode: errors of asyncpg become
`DatabaseUnavailable` where the connection came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from proxy.analytics.figures import Question, Sums, TimeRange
from proxy.analytics.queries import of_calls, whole_days
from proxy.db.pool import Database

Split = Literal["model", "layer"]

# $1 project, $2 the first day, $3 the day after the last, $4 user, $5 request type, $6 period, $7 what splits.
_SERIES: Final = """
SELECT date_trunc($6, day)::date AS period, CASE WHEN $7 = 'layer' THEN layer ELSE model END AS name,
    CASE WHEN $7 = 'layer' THEN sum(layer_requests) ELSE sum(model_requests) END::bigint AS part_requests,
    sum(calls)::bigint AS calls, sum(call_errors)::bigint AS call_errors,
    sum(call_input_tokens)::bigint AS call_input_tokens, sum(call_cached_tokens)::bigint AS call_cached_tokens,
    sum(call_output_tokens)::bigint AS call_output_tokens, sum(call_cost_nanos)::bigint AS call_cost_nanos,
    sum(call_timed)::bigint AS call_timed, sum(call_duration_us)::bigint AS call_duration_us
FROM analytics_usage
WHERE kind = CASE WHEN $4::text IS NULL THEN 'd' ELSE 'u' END::"char"
    AND ($1::text IS NULL OR project_id = $1) AND day >= $2 AND day < $3 AND user_id = coalesce($4, '')
    AND ($5::text IS NULL OR request_type = $5) AND layer <> ''
GROUP BY 1, 2
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Series:
    """Sums of calls over time. Periods without calls are absent."""

    time_range: TimeRange
    by_name: Mapping[str, Mapping[date, Sums]]
    """The dearest names first."""
    other: Mapping[date, Sums]
    """All further names together; there a request counts once per name."""


class SeriesReader:
    """Answers questions about the course of things. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, question: Question, split: Split, most_names: int) -> Series:
        """Return the sums of whole days by period and name, of at most `most_names` names."""
        async with self._database.acquire() as connection:
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
        return _series(days.time_range, rows, most_names)


def _series(time_range: TimeRange, rows: Sequence[Any], most_names: int) -> Series:
    by_name: dict[str, dict[date, Sums]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["period"]] = of_calls(row, row["part_requests"])
    ranked = sorted(by_name, key=lambda name: _weight(by_name[name]), reverse=True)
    other: dict[date, Sums] = {}
    for name in ranked[most_names:]:
        for period, sums in by_name[name].items():
            other[period] = other.get(period, Sums()) + sums
    return Series(time_range, {name: by_name[name] for name in ranked[:most_names]}, dict(sorted(other.items())))


def _weight(points: Mapping[date, Sums]) -> tuple[Any, ...]:
    whole = sum(points.values(), Sums())
    return whole.cost, whole.tokens, whole.calls
