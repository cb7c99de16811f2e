"""API keys in PostgreSQL: all SQL of `api_keys` and of their users' roles.

A secret is 32 random bytes, so its plain SHA-256 cannot be reversed by guessing; only that digest is stored. A key
is displayed by its id.

Failure mode: `db.pool` turns errors of asyncpg into `DatabaseUnavailable` or `RecordRejected`.
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from proxy.auth.roles import Role
from proxy.db.pool import Database

_ID_SIGNS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH: Final = 12

_FIND = "SELECT * FROM sidegate_keys WHERE id = ANY($1::text[])"

_LIST = """
SELECT * FROM sidegate_keys
WHERE ($1::text IS NULL OR project_id = $1) AND ($2::text IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR (created_at, id) < (
        SELECT c.created_at, c.id FROM api_keys c WHERE c.id = $3 AND ($1::text IS NULL OR c.project_id = $1)))
ORDER BY created_at DESC, id DESC LIMIT $4
"""

_INSERT = """
INSERT INTO api_keys (id, secret_hash, name, user_id, project_id, scopes, created_by, expires_at, role_limit)
SELECT $1, $2, $3, $4, id, $6, $7, $8, $9 FROM projects WHERE id = $5
RETURNING id
"""

_ROLE = "SELECT role FROM user_roles WHERE user_id = $1 AND project_id = $2"

_GRANT_LEAST = """
INSERT INTO user_roles (user_id, project_id, role) VALUES ($1, $2, 'developer') ON CONFLICT DO NOTHING
"""

_REPLACE = """
WITH old AS (
    UPDATE api_keys SET replaced_by = $2,
        expires_at = least(coalesce(expires_at, 'infinity'), now() + $4::interval)
    WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AND replaced_by IS NULL
    RETURNING name, user_id, project_id, scopes, role_limit
)
INSERT INTO api_keys (id, secret_hash, name, user_id, project_id, scopes, created_by, expires_at, role_limit)
SELECT $2, $3, name, user_id, project_id, scopes, $5, $6,
    CASE WHEN sidegate_rank($7) < coalesce(sidegate_rank(role_limit), 9) THEN $7 ELSE role_limit END
FROM old RETURNING id
"""

_REVOKE = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1"

_TOUCH = """
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
FROM unnest($1::text[], $2::timestamptz[]) AS u(id, at) WHERE k.id = u.id
"""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One stored key. `scopes`: what it is limited to."""

    id: str
    secret_hash: bytes
    name: str
    user_id: str
    project_id: str
    scopes: Mapping[str, Sequence[str]]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None
    role_limit: Role | None
    """The highest role this key can have; `None`: no limit."""
    role: Role | None
    """The user's current role in the project, capped by `role_limit`."""
    is_valid: bool
    """Neither revoked nor expired, by the clock of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """The properties of a key to be created."""

    name: str
    user_id: str
    project_id: str
    scopes: Mapping[str, Sequence[str]]
    expires_at: datetime | None
    role_limit: Role | None = None


def digest(secret: str) -> bytes:
    """Return the digest under which a secret is stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class KeyStore:
    """All keys. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return the keys that exist, by id."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_FIND, list(ids))
        return {row["id"]: StoredKey(**row) for row in rows}

    async def role(self, user_id: str, project_id: str) -> Role | None:
        """Return a user's role in a project."""
        async with self._database.acquire() as connection:
            found: Role | None = await connection.fetchval(_ROLE, user_id, project_id)
        return found

    async def list(
        self, project_id: str | None, user_id: str | None, limit: int, cursor: str | None
    ) -> Sequence[StoredKey]:
        """Return keys, newest first, older than the one that `cursor` names; none if that is another project's."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_LIST, project_id, user_id, cursor, limit)
        return [StoredKey(**row) for row in rows]

    async def create(self, new: NewKey, by: str) -> tuple[str, str] | None:
        """Store a new key; return its id and the full key, which cannot be read again. `None`: no such project.

        A user without a role in the project becomes a developer there.
        """
        key_id, secret = _make()
        async with self._database.transaction() as connection:
            facts = (new.name, new.user_id, new.project_id, new.scopes, by, new.expires_at, new.role_limit)
            if await connection.fetchval(_INSERT, key_id, digest(secret), *facts) is None:
                return None
            await connection.execute(_GRANT_LEAST, new.user_id, new.project_id)
        return key_id, whole(key_id, secret)

    async def rotate(
        self, key_id: str, overlap: timedelta, expires_at: datetime | None, by: str, role_limit: Role | None = None
    ) -> tuple[str, str] | None:
        """Store a successor; the old key ends after `overlap`. `None`: it is not valid or was rotated before.

        The lower of `role_limit` and the old key's limit applies.
        """
        new_id, secret = _make()
        async with self._database.transaction() as connection:
            facts = (new_id, digest(secret), overlap, by, expires_at, role_limit)
            if await connection.fetchval(_REPLACE, key_id, *facts) is None:
                return None
        return new_id, whole(new_id, secret)

    async def revoke(self, key_id: str) -> None:
        """Revoke a key. Idempotent."""
        async with self._database.transaction() as connection:
            await connection.execute(_REVOKE, key_id)

    async def touch(self, used: Mapping[str, datetime]) -> None:
        """Store when keys were last used."""
        async with self._database.transaction() as connection:
            await connection.execute(_TOUCH, list(used), list(used.values()))


def _make() -> tuple[str, str]:
    return "".join(secrets.choice(_ID_SIGNS) for _ in range(_ID_LENGTH)), secrets.token_urlsafe(32)


def whole(key_id: str, secret: str) -> str:
    """Return the full key, as its owner uses it."""
    return f"sg-{key_id}-{secret}"


def parts(key: str) -> tuple[str, str] | None:
    """Return id and secret of a well-formed key, else `None`."""
    start, _, rest = key.partition("-")
    key_id, _, secret = rest.partition("-")
    if start != "sg" or len(key_id) != _ID_LENGTH or not 0 < len(secret) <= 256:
        return None
    return (key_id, secret) if all(sign in _ID_SIGNS for sign in key_id) else None
