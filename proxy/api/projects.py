"""`/v1/sidegate/projects`: a key sees its own project, the operator all of them.

`DELETE` archives a project and deletes nothing: its traces, sums and quotas remain for the operator, and its id stays
taken, so that nobody can reuse it and inherit a past. Its keys are refused at once by this process and within seconds
everywhere, as are requests that only name the project (`auth.refresh_s`, `projects.poll_s`). Running requests finish
and are charged. `restore` undoes it.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable. All changes but `create` are idempotent.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api import project_config
from proxy.api.bodies import OBJECT, json_answer, members, read_body
from proxy.api.caller import Caller, conflict, not_found
from proxy.api.names import IDENTIFIER, MAX_NAME, NAME
from proxy.api.organizations import DEFAULT as DEFAULT_ORGANIZATION
from proxy.api.paging import DEFAULT_LIMIT, PAGE, page, page_of
from proxy.api.parameters import one_of, read_query, text
from proxy.api.shapes import MOMENT, TEXT, describes, nullable, obj
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.tenants.store import Project, TenantStore

DEFAULT: Final = "default-project"
_LISTED: Final = {
    "organizationId": text(MAX_NAME),
    "state": one_of(("active", "archived", "all")),
    **PAGE,
}
_CHANGED: Final = {"name": NAME, "organizationId": IDENTIFIER}
_NEW: Final = {"id": IDENTIFIER, **_CHANGED, "config": OBJECT}
_SHAPE: Final = obj(
    "Project", id=TEXT, organizationId=TEXT, name=TEXT, createdAt=MOMENT, updatedAt=MOMENT, archivedAt=nullable(MOMENT)
)


class Projects:
    """Handlers of `/v1/sidegate/projects`. `default_project`: the project of requests that name none."""

    def __init__(self, store: TenantStore, keyring: Keyring, audit: AuditLog, default_project: str) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._protected = {DEFAULT, default_project}

    @describes(page("projects", _SHAPE), query=_LISTED)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List projects, by id."""
        values = read_query(request, _LISTED)
        limit, state = values.get("limit", DEFAULT_LIMIT), values.get("state", "active")
        rows = await self._store.projects(
            caller.project_id, values.get("organizationId"), state, limit + 1, values.get("cursor")
        )
        return page_of("projects", rows, limit, document=_document, cursor=lambda row: row.id)

    @describes(_SHAPE)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return one project."""
        read_query(request, {})
        return json_answer(_document(found(await self._store.project(caller.project_in(arguments)))))

    @describes(_SHAPE, status=201, body=_NEW, required=("id",), refuses=(404, 409))
    async def create(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Create a project. Its name defaults to its id, its organization to the default one."""
        read_query(request, {})
        values = members(await read_body(request, project_config.MAX_BYTES), _NEW, required=("id",))
        config = values.get("config", {})
        await project_config.check(self._store, config)
        new_id, organization_id = values["id"], values.get("organizationId", DEFAULT_ORGANIZATION)
        details = {"organizationId": organization_id, "name": values.get("name", new_id)}
        async with self._audit.change(caller.actor, "projects.create", new_id, new_id, details):
            made = await self._store.create_project(new_id, organization_id, details["name"], config)
            if made is None:
                if await self._store.project(new_id) is None:
                    raise not_found("organization", "organizationId")
                raise conflict("project_exists", "A project with this id exists already; it may be archived.", "id")
        return json_answer(_document(made), status=201)

    @describes(_SHAPE, body=_CHANGED)
    async def change(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Change the name or, as the operator, the organization."""
        read_query(request, {})
        values = members(await read_body(request), _CHANGED)
        if "organizationId" in values:
            caller.require("projects:write")
        asked = caller.project_in(arguments)
        name, organization_id = values.get("name"), values.get("organizationId")
        async with self._audit.change(caller.actor, "projects.update", asked, asked, values):
            changed = await self._store.change_project(asked, name, organization_id)
            if changed is None:
                found(await self._store.project(asked))
                raise not_found("organization", "organizationId")
        return json_answer(_document(changed))

    @describes(_SHAPE, refuses=(409,))
    async def archive(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Archive a project."""
        read_query(request, {})
        asked = caller.project_in(arguments)
        if asked in self._protected:
            raise conflict(
                "protected",
                "The default project cannot be archived: requests that name no project belong to it.",
                "projectId",
            )
        async with self._audit.change(caller.actor, "projects.archive", asked, asked):
            ended = found(await self._store.archive(asked, archived=True))
        await self._keyring.recheck(asked)
        return json_answer(_document(ended))

    @describes(_SHAPE, refuses=(408, 413))
    async def restore(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Restore an archived project, with its keys, members and quotas."""
        read_query(request, {})
        await read_body(request)
        asked = caller.project_in(arguments)
        async with self._audit.change(caller.actor, "projects.restore", asked, asked):
            restored = found(await self._store.archive(asked, archived=False))
        return json_answer(_document(restored))


def found(project: Project | None) -> Project:
    """Return the project. Raises 404 for `None`."""
    if project is None:
        raise not_found("project", "projectId")
    return project


def _document(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "organizationId": project.organization_id,
        "name": project.name,
        "createdAt": project.created_at,
        "updatedAt": project.updated_at,
        "archivedAt": project.archived_at,
    }
