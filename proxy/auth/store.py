"""Who has which role in which project: all SQL that reads and changes roles, except for the role of a key's user.

Nobody can take or give a role above their own. The statement itself checks that, so a role that was raised meanwhile
counts.

Failure mode: errors of asyncpg become `DatabaseUnavailable` or `RecordRejected` where the connection came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from proxy.auth.roles import Role
from proxy.db.pool import Connections

_MEMBERS: Final = """
SELECT user_id, role, created_at FROM user_roles
WHERE project_id = $1 AND ($2::text IS NULL OR user_id > $2) ORDER BY user_id LIMIT $3
"""
_SET: Final = """
INSERT INTO user_roles AS r (user_id, project_id, role)
SELECT $2, p.id, $3 FROM projects p WHERE p.id = $1
ON CONFLICT (user_id, project_id) DO UPDATE SET role = excluded.role
WHERE $4::text IS NULL OR sidegate_rank(r.role) <= sidegate_rank($4)
RETURNING user_id, role, created_at
"""
_REMOVE: Final = """
WITH gone AS (
    DELETE FROM user_roles WHERE project_id = $1 AND user_id = $2
        AND ($3::text IS NULL OR sidegate_rank(role) <= sidegate_rank($3))
    RETURNING user_id, project_id
), ended AS (
    UPDATE api_keys k SET revoked_at = now() FROM gone
    WHERE k.project_id = gone.project_id AND k.user_id = gone.user_id AND k.revoked_at IS NULL
    RETURNING k.id
)
SELECT (SELECT count(*) FROM ended)::integer FROM gone
"""
_USERS: Final = """
SELECT user_id, jsonb_agg(jsonb_build_object('projectId', project_id, 'role', role) ORDER BY project_id) AS roles
FROM user_roles
WHERE ($1::text IS NULL OR project_id = $1) AND ($2::text IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR user_id > $3)
GROUP BY user_id ORDER BY user_id LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a project."""

    user_id: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A user and its roles: `{"projectId", "role"}` each."""

    user_id: str
    roles: Sequence[Mapping[str, Any]]


class MemberStore:
    """All roles. Every method raises DatabaseUnavailable. `highest`: the changer's role, `None` for the operator."""

    def __init__(self, database: Connections) -> None:
        self._database = database

    async def list(self, project_id: str, limit: int, cursor: str | None) -> Sequence[Member]:
        """Return the members of a project by name, from that after `cursor`."""
        async with self._database.acquire() as connection:
            return [Member(**row) for row in await connection.fetch(_MEMBERS, project_id, cursor, limit)]

    async def set(self, project_id: str, user_id: str, role: Role, highest: Role | None) -> Member | None:
        """Give a user a role; `None`: there is no such project, or the user's role is above `highest`."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SET, project_id, user_id, role, highest)
        return None if row is None else Member(**row)

    async def remove(self, project_id: str, user_id: str, highest: Role | None) -> int | None:
        """Take a user's role and end its keys there; return how many those were. `None`: no member up to `highest`."""
        async with self._database.transaction() as connection:
            ended: int | None = await connection.fetchval(_REMOVE, project_id, user_id, highest)
        return ended

    async def users(
        self, project_id: str | None, user_id: str | None, limit: int, cursor: str | None
    ) -> Sequence[User]:
        """Return users by name with their roles, from that after `cursor`."""
        async with self._database.acquire() as connection:
            return [User(**row) for row in await connection.fetch(_USERS, project_id, user_id, cursor, limit)]
