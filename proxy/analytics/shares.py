"""Who spent most: users and projects, over whole days."""

from collections.abc import Sequence
from typing import Final

from proxy.analytics.columns import filled, of_requests
from proxy.analytics.figures import Question, Share, TimeRange
from proxy.analytics.ranges import whole_days
from proxy.db.pool import Connection

# $1 project, $2 the first day, $3 the day after the last, $4 request type, $5 how many. Days of a user are kept by
# type, without layer and model.
_USERS: Final = filled("""
{projects}
SELECT user_id AS name, {requests}
FROM project p JOIN analytics_sums u ON u.kind = 's' AND u.project_id = p.project_id AND u.day >= $2 AND u.day < $3
WHERE $4::text IS NULL OR u.request_type = $4
GROUP BY user_id HAVING sum(requests) > 0 ORDER BY cost_nanos DESC, user_id LIMIT $5
""")
_PROJECTS: Final = filled("""
{projects}
SELECT u.project_id AS name, {requests}
FROM project p JOIN analytics_sums u ON u.kind = 'p' AND u.project_id = p.project_id AND u.day >= $2 AND u.day < $3
WHERE $4::text IS NULL OR u.request_type = $4
GROUP BY u.project_id HAVING sum(requests) > 0 ORDER BY cost_nanos DESC, u.project_id LIMIT $5
""")


async def read_users(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
    """Return at most `limit` users, the one who spent most first."""
    return await _read(connection, _USERS, question, limit)


async def read_projects(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
    """Return at most `limit` projects, each by its own days."""
    return await _read(connection, _PROJECTS, question, limit)


async def _read(
    connection: Connection, statement: str, question: Question, limit: int
) -> tuple[TimeRange, Sequence[Share]]:
    days = await whole_days(connection, question)
    rows = await connection.fetch(statement, question.project_id, days.first, days.past, question.request_type, limit)
    return days.time_range, [Share(row["name"], of_requests(row)) for row in rows]
