"""Rebuilds sums from traces, and sums past days in blocks: all SQL that compares and replaces rows of the sums.

The sums are maintained by triggers (migrations/003, 008, 012 and 013), so they agree with the traces by construction.
They are rebuilt after somebody changed or deleted traces manually, or moved a project to another time zone: a day is
that of the zone at the time of the sum. This is done day by day; a day that is wrong is summed in a transaction that
blocks writers, so that no trace is missed or counted twice. Sums of sums are rebuilt from the finer ones.

Blocks of days are copies of sums, so that a query about months reads few rows. Whatever changes one of their days
withdraws them, and `make_blocks` makes them again.

Failure mode: errors of asyncpg become `DatabaseUnavailable` where the connection came from; what was not committed has
changed nothing and can be retried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from proxy.db.pool import Connections
from proxy.db.transaction import Connection

# The rows of sums of sums that differ from the totals of the finer ones, or exist on one side only. Blocks are compared
# with their halves, down to two days.
_COARSE: Final = """coarse AS (
    WITH kept AS (
        SELECT * FROM analytics_days WHERE requests + calls <> 0 AND day = $1
    ), added AS (
        SELECT * FROM sidegate_usage_days($1, $1::date + 1)
    ), kept_times AS (
        SELECT * FROM analytics_latency_days WHERE number <> 0 AND day = $1
    ), added_times AS (
        SELECT * FROM sidegate_latency_days($1, $1::date + 1)
    ), block AS MATERIALIZED (
        SELECT * FROM analytics_blocks WHERE $1 >= first_day AND $1 < first_day + days
    ), kept_users AS (
        SELECT analytics_user_blocks.* FROM block JOIN analytics_user_blocks USING (days, first_day)
    ), added_users AS (
        SELECT made.* FROM block CROSS JOIN LATERAL sidegate_user_block(days, first_day) AS made
    ), kept_blocks AS (
        SELECT analytics_latency_blocks.* FROM block JOIN analytics_latency_blocks USING (days, first_day)
    ), added_blocks AS (
        SELECT made.* FROM block CROSS JOIN LATERAL sidegate_latency_block(days, first_day) AS made
    )
    SELECT project_id FROM ((TABLE kept EXCEPT TABLE added) UNION ALL (TABLE added EXCEPT TABLE kept)) AS usage
    UNION ALL
    SELECT project_id FROM ((TABLE kept_times EXCEPT TABLE added_times)
        UNION ALL (TABLE added_times EXCEPT TABLE kept_times)) AS latency
    UNION ALL
    SELECT project_id FROM ((TABLE kept_users EXCEPT TABLE added_users)
        UNION ALL (TABLE added_users EXCEPT TABLE kept_users)) AS users
    UNION ALL
    SELECT project_id FROM ((TABLE kept_blocks EXCEPT TABLE added_blocks)
        UNION ALL (TABLE added_blocks EXCEPT TABLE kept_blocks)) AS blocks
)"""
_COARSE_DIFFERS: Final = "WITH {coarse} SELECT EXISTS (SELECT FROM coarse)".replace("{coarse}", _COARSE)

# From when to when day $1 is, in the zones of all projects; without a known project it is UTC.
_SPAN: Final = """
SELECT min($1::date::timestamp AT TIME ZONE zone), max(($1::date + 1)::timestamp AT TIME ZONE zone)
FROM (SELECT 'UTC' AS zone UNION SELECT sidegate_zone(id) FROM projects WHERE $2::text IS NULL OR id = $2) AS zones
"""

# $1 the day, $2 project, $3 and $4 the span of the traces that may be of that day; the functions compute which are.
_COMPARE = """
WITH line AS (
    SELECT is_kept, kind, project_id, user_id, quarter, layer, model, request_type,
        ARRAY[sum(requests), sum(errors), sum(rejected), sum(aborted), sum(cache_hits), sum(input_tokens),
            sum(cached_input_tokens), sum(output_tokens), sum(cost_nanos), sum(timed), sum(duration_us),
            sum(layer_requests), sum(model_requests), sum(pair_requests), sum(calls), sum(call_errors),
            sum(call_input_tokens), sum(call_cached_tokens), sum(call_output_tokens), sum(call_cost_nanos),
            sum(call_timed), sum(call_duration_us)] AS figures
    FROM (
        SELECT true AS is_kept, u.* FROM analytics_usage u WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)
        UNION ALL
        SELECT false, u.* FROM sidegate_usage($2, NULL, $3, $4) u WHERE day = $1
    ) AS rows
    GROUP BY is_kept, kind, project_id, user_id, quarter, layer, model, request_type
), usage AS (
    SELECT kind, project_id, (array_agg(figures) FILTER (WHERE is_kept)) AS kept,
        (array_agg(figures) FILTER (WHERE NOT is_kept)) AS counted
    FROM line GROUP BY kind, project_id, user_id, quarter, layer, model, request_type
), latency AS (
    SELECT project_id, sum(kept) <> sum(counted) AS differs
    FROM (
        SELECT project_id, layer, model, request_type, measure, bucket, number AS kept, 0 AS counted
        FROM analytics_latency WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)
        UNION ALL
        SELECT project_id, layer, model, request_type, measure, bucket, 0, number
        FROM sidegate_latency($2, NULL, $3, $4) WHERE day = $1
    ) AS sides GROUP BY project_id, layer, model, request_type, measure, bucket
), findings AS (
    SELECT project_id, sum(kept) <> sum(counted) AS differs
    FROM (
        SELECT project_id, direction, rule, category, action, findings + requests AS kept, 0 AS counted
        FROM analytics_findings WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)
        UNION ALL
        SELECT project_id, direction, rule, category, action, 0, findings + requests
        FROM sidegate_findings($2, $3, $4) WHERE day = $1
    ) AS sides GROUP BY project_id, direction, rule, category, action
), {coarse}
SELECT project_id, sum(wrong)::bigint AS wrong,
    coalesce(sum(kept[1][1]), 0)::bigint, coalesce(sum(counted[1][1]), 0)::bigint,
    coalesce(sum(kept[1][6] + kept[1][8]), 0)::bigint, coalesce(sum(counted[1][6] + counted[1][8]), 0)::bigint,
    coalesce(sum(kept[1][9]), 0) * 0.000000001, coalesce(sum(counted[1][9]), 0) * 0.000000001
FROM (
    SELECT project_id, 0 AS wrong, kept, counted FROM usage WHERE kind = 'd'
    UNION ALL SELECT project_id, 1, NULL, NULL FROM usage WHERE kept IS DISTINCT FROM counted
    UNION ALL SELECT project_id, differs::integer, NULL, NULL FROM latency
    UNION ALL SELECT project_id, differs::integer, NULL, NULL FROM findings
    UNION ALL SELECT project_id, 1, NULL, NULL FROM coarse WHERE $2::text IS NULL OR project_id = $2
) AS found
GROUP BY project_id ORDER BY project_id
""".replace("{coarse}", _COARSE)

_LOCK = """
LOCK TABLE analytics_usage, analytics_latency, analytics_days, analytics_latency_days, analytics_findings
IN SHARE ROW EXCLUSIVE MODE
"""
_FORGET_USAGE = "DELETE FROM analytics_usage WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)"
_FORGET_LATENCY = "DELETE FROM analytics_latency WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)"
_COUNT_USAGE = """
INSERT INTO analytics_usage
SELECT * FROM sidegate_usage($2, NULL, $3, $4) WHERE day = $1
"""
_COUNT_LATENCY = """
INSERT INTO analytics_latency
SELECT * FROM sidegate_latency($2, NULL, $3, $4) WHERE day = $1
"""
_FORGET_FINDINGS = "DELETE FROM analytics_findings WHERE day = $1 AND ($2::text IS NULL OR project_id = $2)"
_COUNT_FINDINGS = """
INSERT INTO analytics_findings
SELECT * FROM sidegate_findings($2, $3, $4) WHERE day = $1
"""
# Triggers have applied the changes of the finer rows; these statements correct what was wrong before.
_FORGET_DAYS = "DELETE FROM analytics_days WHERE day = $1"
_ADD_UP = "INSERT INTO analytics_days SELECT * FROM sidegate_usage_days($1, $1::date + 1)"
_FORGET_LATENCY_DAYS = "DELETE FROM analytics_latency_days WHERE day = $1"
_ADD_UP_LATENCY = "INSERT INTO analytics_latency_days SELECT * FROM sidegate_latency_days($1, $1::date + 1)"
_WITHDRAW_BLOCKS = "SELECT sidegate_withdraw_blocks(ARRAY[$1::date])"
_FORGET: Final = (_FORGET_USAGE, _FORGET_LATENCY, _FORGET_FINDINGS)
_FROM_TRACES: Final = (_COUNT_USAGE, _COUNT_LATENCY, _COUNT_FINDINGS)
_FROM_SUMS: Final = (_FORGET_DAYS, _ADD_UP, _FORGET_LATENCY_DAYS, _ADD_UP_LATENCY, _WITHDRAW_BLOCKS)

_MAKE_BLOCK: Final = "SELECT sidegate_make_block()"

_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class DayCheck:
    """Sums of one project and day as stored, and as computed from its traces."""

    project_id: str
    wrong: int
    """Rows that differ, or exist on one side only."""
    kept_requests: int
    counted_requests: int
    kept_tokens: int
    counted_tokens: int
    kept_cost: Decimal
    counted_cost: Decimal


class Rollup:
    """Compares sums with traces and rebuilds them. `retention_days`: how long traces are kept; 0: for ever."""

    def __init__(self, database: Connections, retention_days: int) -> None:
        self._database = database
        self._retention_days = retention_days

    def has_traces_of(self, day: date) -> bool:
        """Tell whether all traces of a day are still kept, in every time zone."""
        today = datetime.now(UTC).date()
        return not self._retention_days or day > today - timedelta(days=self._retention_days - 1)

    async def check(self, day: date, project_id: str | None) -> Sequence[DayCheck]:
        """Compare one day, of one project or of all; change nothing. Raises DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            return await _compare(connection, day, project_id)

    async def rebuild(self, day: date, project_id: str | None) -> Sequence[DayCheck]:
        """Rebuild the sums of one day if they are wrong; return the old and new ones. Raises DatabaseUnavailable.

        Writers wait only if something is wrong.
        """
        checks = await self.check(day, project_id)
        if not any(row.wrong for row in checks):
            return checks
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK, timeout=_TIMEOUT_S)
            checks = await _compare(connection, day, project_id)
            if any(row.wrong for row in checks):
                await _count_anew(connection, day, project_id)
        return checks

    async def make_blocks(self) -> int:
        """Sum past days in blocks until none is due; return how many were made. Raises DatabaseUnavailable.

        Each is a transaction of its own in which writers wait; where another process makes blocks, this one leaves it
        to that.
        """
        made = 0
        while True:
            async with self._database.transaction(patient=True) as connection:
                if not await connection.fetchval(_MAKE_BLOCK, timeout=_TIMEOUT_S):
                    return made
            made += 1


async def _compare(connection: Connection, day: date, project_id: str | None) -> Sequence[DayCheck]:
    rows = await connection.fetch(
        _COMPARE, day, project_id, *await _span(connection, day, project_id), timeout=_TIMEOUT_S
    )
    return [DayCheck(*row.values()) for row in rows]


async def _count_anew(connection: Connection, day: date, project_id: str | None) -> None:
    span = await _span(connection, day, project_id)
    for statement in _FORGET:
        await connection.execute(statement, day, project_id, timeout=_TIMEOUT_S)
    for statement in _FROM_TRACES:
        await connection.execute(statement, day, project_id, *span, timeout=_TIMEOUT_S)
    if await connection.fetchval(_COARSE_DIFFERS, day, timeout=_TIMEOUT_S):
        for statement in _FROM_SUMS:
            await connection.execute(statement, day, timeout=_TIMEOUT_S)


async def _span(connection: Connection, day: date, project_id: str | None) -> tuple[datetime, datetime]:
    row = await connection.fetchrow(_SPAN, day, project_id)
    assert row is not None
    return row[0], row[1]
