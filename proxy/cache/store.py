"""Answers shared by replicas: all SQL of `cached_answers`.

A digest includes the project, and queries filter by project as well: no bug in a key can return another one's answer.
Times are PostgreSQL's; results have ages.

Failure mode: errors of asyncpg become `DatabaseUnavailable` or `RecordRejected` where the connection came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.cache.memory import Form
from proxy.db.pool import Database

_GET = """
SELECT form, content_type, body, has_usage, extract(epoch FROM now() - made_at)::float8 AS age_s
FROM cached_answers
WHERE digest = $1 AND form = ANY ($2::text[]) AND project_id = $3 AND expires_at > now()
"""
_PUT = """
INSERT INTO cached_answers (digest, form, project_id, content_type, body, has_usage, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second')
ON CONFLICT (digest, form) DO UPDATE SET content_type = excluded.content_type, body = excluded.body,
    has_usage = excluded.has_usage, made_at = excluded.made_at, expires_at = excluded.expires_at
WHERE cached_answers.project_id = excluded.project_id
"""
_FORGET_EXPIRED = "DELETE FROM cached_answers WHERE expires_at <= now()"
_FORGET_OLDEST = """
WITH kept AS (
    SELECT digest, form, sum(octet_length(body)) OVER (ORDER BY made_at DESC, digest, form) AS bytes FROM cached_answers
)
DELETE FROM cached_answers c USING kept k WHERE c.digest = k.digest AND c.form = k.form AND k.bytes > $1
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One shared answer. `age_s`: 0 for a new one."""

    form: Form
    content_type: str
    body: bytes
    has_usage: bool
    age_s: float = 0.0


class AnswerStore:
    """Reads and writes answers. `limit_bytes`: of all bodies together, enforced by `trim`."""

    def __init__(self, database: Database, limit_bytes: int, ttl_s: float) -> None:
        self._database = database
        self._limit_bytes = limit_bytes
        self._ttl_s = ttl_s

    @property
    def is_up(self) -> bool:
        """False while PostgreSQL is known to be unavailable, so that nobody waits for it."""
        return self._database.is_up

    async def get(self, digest: bytes, forms: Sequence[Form], project_id: str) -> Sequence[Row]:
        """Return the stored answers that have not expired. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_GET, digest, list(forms), project_id)
        return [Row(*row.values()) for row in rows]

    async def put(self, digest: bytes, project_id: str, row: Row) -> None:
        """Store or replace an answer. Raises DatabaseUnavailable, or RecordRejected if the project does not exist."""
        async with self._database.acquire() as connection:
            await connection.execute(
                _PUT, digest, row.form, project_id, row.content_type, row.body, row.has_usage, self._ttl_s
            )

    async def trim(self) -> None:
        """Delete expired answers, and the oldest beyond the limit. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            await connection.execute(_FORGET_EXPIRED)
            await connection.execute(_FORGET_OLDEST, self._limit_bytes)
