"""`/v1/sidegate/projects`: a key sees its own project, the operator all of them.

Ending a project archives it, and nothing is deleted: its traces, sums and quotas remain for the operator, and its id
stays taken, so that nobody can take it again and find another's past. Its keys are refused here at once, and they and
requests that only name the project everywhere within seconds (`auth.refresh_s`, `projects.poll_s`); what runs is
finished and charged. `restore` undoes it.

Failure mode: leaves of `errors`; a database that is away is 503. All changes but `create` may be sent again.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api import project_config
from proxy.api.bodies import OBJECT, invalid, json_answer, members, read_body
from proxy.api.caller import Caller, conflict, not_found
from proxy.api.names import IDENTIFIER, MAX_NAME, NAME, is_identifier
from proxy.api.organizations import DEFAULT as DEFAULT_ORGANIZATION
from proxy.api.parameters import integer, one_of, read, text
from proxy.api.shapes import MOMENT, TEXT, describes, nullable, obj, page
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.tenants.store import Project, TenantStore

DEFAULT: Final = "default-project"
_LISTED: Final = {
    "organizationId": text(MAX_NAME),
    "state": one_of(("active", "archived", "all")),
    "limit": integer(1, 500),
    "cursor": text(MAX_NAME),
}
_CHANGED: Final = {"name": NAME, "organizationId": IDENTIFIER}
_NEW: Final = {"id": IDENTIFIER, **_CHANGED, "config": OBJECT}
_SHAPE: Final = obj(
    "Project", id=TEXT, organizationId=TEXT, name=TEXT, createdAt=MOMENT, updatedAt=MOMENT, archivedAt=nullable(MOMENT)
)


class Projects:
    """Handlers of the noun. `default_project`: that of requests which name none."""

    def __init__(self, store: TenantStore, keyring: Keyring, audit: AuditLog, default_project: str) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._protected = {DEFAULT, default_project}

    @describes(page("projects", _SHAPE), query=_LISTED)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with projects by id."""
        values = read(_query(request), _LISTED)
        limit, state = values.get("limit", 100), values.get("state", "active")
        found = await self._store.projects(
            caller.project_id, values.get("organizationId"), state, limit + 1, values.get("cursor")
        )
        return json_answer(
            {
                "projects": [_document(each) for each in found[:limit]],
                "nextCursor": found[limit - 1].id if len(found) > limit else None,
            }
        )

    @describes(_SHAPE)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with one project."""
        read(_query(request), {})
        return json_answer(_document(found(await self._store.project(project_id(arguments, caller)))))

    @describes(_SHAPE, status=201, body=_NEW, required=("id",), refuses=(404, 409))
    async def create(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Make a project; its name is its id, and its organization the default one, unless they are given."""
        read(_query(request), {})
        values = members(await read_body(request, project_config.MAX_BYTES), _NEW)
        if "id" not in values:
            raise invalid("id", "`id` is missing.")
        config = values.get("config", {})
        await project_config.check(self._store, config)
        new_id, organization_id = values["id"], values.get("organizationId", DEFAULT_ORGANIZATION)
        details = {"organizationId": organization_id, "name": values.get("name", new_id)}
        async with self._audit.change(caller.actor, "projects.create", new_id, new_id, details):
            made = await self._store.create_project(new_id, organization_id, details["name"], config)
            if made is None:
                if await self._store.project(new_id) is None:
                    raise not_found("organization", "organizationId")
                raise conflict("project_exists", "There is a project with this id, maybe an archived one.", "id")
        return json_answer(_document(made), status=201)

    @describes(_SHAPE, body=_CHANGED)
    async def change(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Change the name, or (the operator alone) the organization."""
        read(_query(request), {})
        values = members(await read_body(request), _CHANGED)
        if "organizationId" in values:
            caller.require("projects:write")
        asked = project_id(arguments, caller)
        name, organization_id = values.get("name"), values.get("organizationId")
        async with self._audit.change(caller.actor, "projects.update", asked, asked, values):
            changed = await self._store.change_project(asked, name, organization_id)
            if changed is None:
                found(await self._store.project(asked))
                raise not_found("organization", "organizationId")
        return json_answer(_document(changed))

    @describes(_SHAPE, refuses=(409,))
    async def archive(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """End a project; answer with it."""
        read(_query(request), {})
        asked = project_id(arguments, caller)
        if asked in self._protected:
            raise conflict("protected", "The default project is that of requests which name none.", "projectId")
        async with self._audit.change(caller.actor, "projects.archive", asked, asked):
            ended = found(await self._store.archive(asked, archived=True))
        await self._keyring.recheck(asked)
        return json_answer(_document(ended))

    @describes(_SHAPE, refuses=(408, 413))
    async def restore(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Let an archived project go on, with the keys, members and quotas that it had; answer with it."""
        read(_query(request), {})
        await read_body(request)
        asked = project_id(arguments, caller)
        async with self._audit.change(caller.actor, "projects.restore", asked, asked):
            restored = found(await self._store.archive(asked, archived=False))
        return json_answer(_document(restored))


def project_id(arguments: Mapping[str, str], caller: Caller) -> str:
    """Return the project that a path names. Raises 404 if it is not the caller's, or cannot be one."""
    asked = arguments["projectId"]
    if not is_identifier(asked):
        raise not_found("project", "projectId")
    caller.check_sees(asked)
    return asked


def found(project: Project | None) -> Project:
    """Return a project that is there. Raises 404."""
    if project is None:
        raise not_found("project", "projectId")
    return project


def _query(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[2]


def _document(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "organizationId": project.organization_id,
        "name": project.name,
        "createdAt": project.created_at,
        "updatedAt": project.updated_at,
        "archivedAt": project.archived_at,
    }
