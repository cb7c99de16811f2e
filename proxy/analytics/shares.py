"""Who spent most: users and projects, over whole days."""

from collections.abc import Sequence
from typing import Any, Final

from proxy.analytics.columns import filled, of_requests
from proxy.analytics.figures import Question, Share, TimeRange
from proxy.analytics.ranges import whole_days
from proxy.db.transaction import Connection

# $1 project, $2 the first day, $3 the day after the last, $4 request type, $5 limit. Past days are read from blocks of
# up to 64 days. Both have rows by type, without layer and model. OFFSET 0 keeps the planner from reading all rows of a
# kind at once.
_USERS: Final = filled("""
{projects}, part AS MATERIALIZED (
    SELECT * FROM sidegate_blocks($2, $3)
), cell AS (
    SELECT user_id, request_type, {columns}
    FROM part CROSS JOIN LATERAL (
        SELECT * FROM analytics_user_blocks b
        WHERE b.days = part.days AND b.first_day = part.first_day AND ($1::text IS NULL OR b.project_id = $1) OFFSET 0
    ) AS b
    WHERE part.days > 1
    UNION ALL
    SELECT user_id, request_type, {columns}
    FROM project p CROSS JOIN part CROSS JOIN LATERAL (
        SELECT * FROM analytics_days u WHERE u.kind = 's' AND u.project_id = p.project_id AND u.day >= part.first_day
            AND u.day < part.past_day
        OFFSET 0
    ) AS u
    WHERE part.days = 1
)
SELECT user_id AS name, {requests}
FROM cell
WHERE $4::text IS NULL OR request_type = $4
GROUP BY user_id HAVING sum(requests) > 0 ORDER BY cost_nanos DESC, user_id LIMIT $5
""")
_PROJECTS: Final = filled("""
{projects}
SELECT u.project_id AS name, {requests}
FROM project p JOIN analytics_days u ON u.kind = 'p' AND u.project_id = p.project_id AND u.day >= $2 AND u.day < $3
WHERE $4::text IS NULL OR u.request_type = $4
GROUP BY u.project_id HAVING sum(requests) > 0 ORDER BY cost_nanos DESC, u.project_id LIMIT $5
""")


async def read_users(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
    """Return at most `limit` users, highest cost first."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(_USERS, question.project_id, days.first, days.past, question.request_type, limit)
    return days.time_range, _shares(rows)


async def read_projects(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
    """Return at most `limit` projects, each by its own days."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(_PROJECTS, question.project_id, days.first, days.past, question.request_type, limit)
    return days.time_range, _shares(rows)


def _shares(rows: Sequence[Any]) -> Sequence[Share]:
    return [Share(row["name"], of_requests(row)) for row in rows]
