"""The settings of projects in PostgreSQL: all SQL of the directory.

Only projects with settings are read. `updated_at` is set by a trigger at every change, to the time at which the
transaction began: the change may become visible some time later. So queries for changes look back beyond the last one.

Failure mode: errors of asyncpg become `DatabaseUnavailable` where the connection came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from proxy.db.pool import Database

_ALL = """
SELECT id, CASE WHEN archived_at IS NULL THEN config END AS config FROM projects
WHERE config <> '{}' OR archived_at IS NOT NULL ORDER BY updated_at DESC LIMIT $1
"""
_CHANGED = """
SELECT id, CASE WHEN archived_at IS NULL THEN config END AS config FROM projects
WHERE updated_at > $2 ORDER BY updated_at DESC LIMIT $1
"""
_NOW = "SELECT now()"


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """One project as stored in the database."""

    id: str
    config: Any
    """The decoded document; `None`: the project is archived."""


@dataclass(frozen=True, slots=True)
class Answer:
    """PostgreSQL's answer, and its own clock before the query."""

    rows: Sequence[ProjectRow]
    asked_at: datetime


class ProjectStore:
    """Reads projects."""

    def __init__(self, database: Database, max_projects: int) -> None:
        self._database = database
        self._max_projects = max_projects

    async def all(self) -> Answer:
        """Return the projects with settings. Raises DatabaseUnavailable."""
        return await self._ask(_ALL)

    async def changed_since(self, moment: datetime, look_back: timedelta) -> Answer:
        """Return the projects that changed after `moment`, or shortly before. Raises DatabaseUnavailable."""
        return await self._ask(_CHANGED, moment - look_back)

    async def _ask(self, query: str, *arguments: datetime) -> Answer:
        async with self._database.acquire() as connection:
            asked_at = await connection.fetchval(_NOW)
            rows = await connection.fetch(query, self._max_projects, *arguments)
        return Answer([ProjectRow(row["id"], row["config"]) for row in rows], asked_at)
