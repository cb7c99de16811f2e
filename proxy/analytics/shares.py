"""Who spent most: users and projects, over whole days."""

from collections.abc import Sequence
from typing import Any, Final

from proxy.analytics.columns import filled, of_requests
from proxy.analytics.figures import Question, Share, TimeRange
from proxy.analytics.ranges import whole_days
from proxy.db.pool import Connection

# $1 project, $2 the first day, $3 the day after the last, $4 request type, $5 limit, $6 and $7 as $2 and $3 of the
# whole weeks. Days and weeks of a user are stored by type, without layer and model. OFFSET 0 keeps the planner from
# reading all rows of a kind at once.
_USERS: Final = filled("""
{projects}
SELECT user_id AS name, {requests}
FROM project p CROSS JOIN (VALUES ('s'::"char", $2::date, $6::date), ('S', $6, $7::date), ('s', $7, $3::date))
    AS part(kind, first, past)
CROSS JOIN LATERAL (
    SELECT * FROM analytics_sums u
    WHERE u.kind = part.kind AND u.project_id = p.project_id AND u.day >= part.first AND u.day < part.past
    OFFSET 0
) AS u
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
    """Return at most `limit` users, highest cost first."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(
        _USERS, question.project_id, days.first, days.past, question.request_type, limit, *days.weeks
    )
    return days.time_range, _shares(rows)


async def read_projects(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
    """Return at most `limit` projects, each by its own days."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(_PROJECTS, question.project_id, days.first, days.past, question.request_type, limit)
    return days.time_range, _shares(rows)


def _shares(rows: Sequence[Any]) -> Sequence[Share]:
    return [Share(row["name"], of_requests(row)) for row in rows]
