"""Who changed what: all SQL of `audit_log`.

A row is written before its change is made, so that there is no change without one; if it cannot be written, the change
is not made. Afterwards the row is updated with the outcome. A row that stays `begun` means that the outcome is unknown:
the process died or PostgreSQL became unavailable in between.

Rule of the file: details are names and figures; never a key, a prompt or an answer.
Failure mode: `DatabaseUnavailable` before the change; after it, the row stays as it is and a warning is logged.
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from proxy.db.pool import Connections
from proxy.errors import DatabaseUnavailable, ProxyError

Outcome = Literal["begun", "done", "refused", "failed"]
_log = logging.getLogger("sidegate.audit")

_BEGIN = """
INSERT INTO audit_log (actor, key_id, peer, action, project_id, target, details)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id
"""
_END = "UPDATE audit_log SET outcome = $2, target = coalesce($3, target) WHERE id = $1"
_LIST = """
SELECT id, at, actor, key_id, peer, action, project_id, target, details, outcome FROM audit_log
WHERE ($1::text IS NULL OR project_id = $1) AND ($2::bigint IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change. `key_id` is `None` for the admin key."""

    name: str
    key_id: str | None
    peer: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log."""

    id: int
    at: datetime
    actor: str
    key_id: str | None
    peer: str | None
    action: str
    project_id: str | None
    target: str | None
    details: Mapping[str, Any]
    outcome: Outcome


@dataclass(slots=True)
class Change:
    """A change in progress; its `target` may become known only while it is made."""

    target: str | None


class AuditLog:
    """The audit log."""

    def __init__(self, database: Connections) -> None:
        self._database = database

    @asynccontextmanager
    async def change(
        self,
        actor: Actor,
        action: str,
        project_id: str | None = None,
        target: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Change]:
        """Record the change made in the block. Raises DatabaseUnavailable before the block if that is impossible."""
        async with self._database.acquire() as connection:
            facts = (actor.name, actor.key_id, actor.peer, action, project_id, target, details or {})
            row = await connection.fetchval(_BEGIN, *facts)
        change = Change(target)
        outcome: Outcome = "failed"
        try:
            yield change
            outcome = "done"
        except ProxyError as error:
            outcome = "refused" if error.http_status < 500 else "failed"
            raise
        finally:
            await self._end(row, outcome, change.target)

    async def list(self, project_id: str | None, limit: int, cursor: int | None) -> Sequence[Entry]:
        """Return entries, newest first, of one project or of all. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            return [Entry(*row.values()) for row in await connection.fetch(_LIST, project_id, cursor, limit)]

    async def _end(self, row: int, outcome: Outcome, target: str | None) -> None:
        try:
            async with self._database.acquire() as connection:
                await connection.execute(_END, row, outcome, target)
        except DatabaseUnavailable:
            _log.warning("the outcome of a change could not be recorded", extra={"row": row, "outcome": outcome})
