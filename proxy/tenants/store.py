"""Organizations and projects in PostgreSQL: all SQL that creates, changes and ends them.

A project is archived, never deleted: traces, sums and quotas refer to its id without a foreign key, so whoever reused
the id would inherit its history. An organization has no history of its own and can be deleted once it has no projects.

Failure mode: `db.pool` turns errors of asyncpg into `DatabaseUnavailable` or `RecordRejected`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from proxy.db.pool import Connections
from proxy.errors import RecordRejected

State = Literal["active", "archived", "all"]

_ORGANIZATIONS: Final = """
SELECT id, name, metadata, created_at, updated_at FROM organizations
WHERE ($1::text IS NULL OR id = $1) AND ($2::text IS NULL OR id > $2) ORDER BY id LIMIT $3
"""
_CREATE_ORGANIZATION: Final = """
INSERT INTO organizations (id, name, metadata) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
RETURNING id, name, metadata, created_at, updated_at
"""
_CHANGE_ORGANIZATION: Final = """
UPDATE organizations SET name = coalesce($2, name), metadata = coalesce($3, metadata) WHERE id = $1
RETURNING id, name, metadata, created_at, updated_at
"""
_DELETE_ORGANIZATION: Final = """
DELETE FROM organizations o WHERE o.id = $1 AND NOT EXISTS (SELECT FROM projects p WHERE p.organization_id = o.id)
RETURNING o.id
"""
_PROJECTS: Final = """
SELECT id, organization_id, name, created_at, updated_at, archived_at FROM projects
WHERE ($1::text IS NULL OR id = $1) AND ($2::text IS NULL OR organization_id = $2)
    AND ($3 = 'all' OR (archived_at IS NULL) = ($3 = 'active')) AND ($4::text IS NULL OR id > $4)
ORDER BY id LIMIT $5
"""
_CREATE_PROJECT: Final = """
INSERT INTO projects (id, organization_id, name, config)
SELECT $1, o.id, $3, $4 FROM organizations o WHERE o.id = $2 FOR SHARE
ON CONFLICT DO NOTHING
RETURNING id, organization_id, name, created_at, updated_at, archived_at
"""
_CHANGE_PROJECT: Final = """
UPDATE projects SET name = coalesce($2, name), organization_id = coalesce($3, organization_id)
WHERE id = $1 AND ($3::text IS NULL OR EXISTS (SELECT FROM organizations WHERE id = $3 FOR SHARE))
RETURNING id, organization_id, name, created_at, updated_at, archived_at
"""
_ARCHIVE: Final = """
UPDATE projects SET archived_at = CASE WHEN $2 THEN coalesce(archived_at, now()) END WHERE id = $1
RETURNING id, organization_id, name, created_at, updated_at, archived_at
"""
_CONFIG: Final = "SELECT config, sidegate_version(config) AS version FROM projects WHERE id = $1"
_SET_CONFIG: Final = """
UPDATE projects SET config = $2 WHERE id = $1 AND ($3::text[] IS NULL OR sidegate_version(config) = ANY($3))
RETURNING config, sidegate_version(config) AS version
"""
_ZONE: Final = "SELECT sidegate_is_time_zone($1)"


@dataclass(frozen=True, slots=True)
class Organization:
    """One organization. `metadata`: any JSON object, not interpreted."""

    id: str
    name: str
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    """One project without its settings. `archived_at`: `None` while it is active."""

    id: str
    organization_id: str
    name: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """The settings of a project, and their version."""

    config: Mapping[str, Any]
    version: str


class TenantStore:
    """All organizations and projects. Every method raises DatabaseUnavailable; `None` means: does not exist."""

    def __init__(self, database: Connections) -> None:
        self._database = database

    async def organizations(self, limit: int, cursor: str | None = None) -> Sequence[Organization]:
        """Return organizations by id, starting after `cursor`."""
        async with self._database.acquire() as connection:
            return [Organization(**row) for row in await connection.fetch(_ORGANIZATIONS, None, cursor, limit)]

    async def organization(self, organization_id: str) -> Organization | None:
        """Return one organization."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(_ORGANIZATIONS, organization_id, None, 1)
        return None if row is None else Organization(**row)

    async def create_organization(
        self, organization_id: str, name: str, metadata: Mapping[str, Any]
    ) -> Organization | None:
        """Create an organization; `None`: the id is taken."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CREATE_ORGANIZATION, organization_id, name, metadata)
        return None if row is None else Organization(**row)

    async def change_organization(
        self, organization_id: str, name: str | None, metadata: Mapping[str, Any] | None
    ) -> Organization | None:
        """Change the members that are not `None`."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CHANGE_ORGANIZATION, organization_id, name, metadata)
        return None if row is None else Organization(**row)

    async def delete_organization(self, organization_id: str) -> bool:
        """Delete an organization without projects; tell whether it was deleted."""
        try:
            async with self._database.transaction() as connection:
                return await connection.fetchval(_DELETE_ORGANIZATION, organization_id) is not None
        except RecordRejected:  # a project was created in it at the same time
            return False

    async def projects(
        self, project_id: str | None, organization_id: str | None, state: State, limit: int, cursor: str | None
    ) -> Sequence[Project]:
        """Return projects by id, starting after `cursor`, limited to one project or one organization if given."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_PROJECTS, project_id, organization_id, state, cursor, limit)
        return [Project(**row) for row in rows]

    async def project(self, project_id: str) -> Project | None:
        """Return one project, archived or not."""
        found = await self.projects(project_id, None, "all", 1, None)
        return found[0] if found else None

    async def create_project(
        self, project_id: str, organization_id: str, name: str, config: Mapping[str, Any]
    ) -> Project | None:
        """Create a project; `None`: the id is taken, or there is no such organization."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CREATE_PROJECT, project_id, organization_id, name, config)
        return None if row is None else Project(**row)

    async def change_project(self, project_id: str, name: str | None, organization_id: str | None) -> Project | None:
        """Change the members that are not `None`. Returns `None` if project or organization does not exist."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CHANGE_PROJECT, project_id, name, organization_id)
        return None if row is None else Project(**row)

    async def archive(self, project_id: str, archived: bool) -> Project | None:
        """Archive or restore a project. Idempotent."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_ARCHIVE, project_id, archived)
        return None if row is None else Project(**row)

    async def config(self, project_id: str) -> ProjectConfig | None:
        """Return a project's settings."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(_CONFIG, project_id)
        return None if row is None else ProjectConfig(**row)

    async def set_config(
        self, project_id: str, config: Mapping[str, Any], versions: Sequence[str] | None
    ) -> ProjectConfig | None:
        """Replace a project's settings if their version is one of `versions`, or unconditionally if that is `None`."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SET_CONFIG, project_id, config, versions)
        return None if row is None else ProjectConfig(**row)

    async def is_time_zone(self, name: str) -> bool:
        """Tell whether PostgreSQL, which computes the calendar days, knows a time zone."""
        async with self._database.acquire() as connection:
            return bool(await connection.fetchval(_ZONE, name))
