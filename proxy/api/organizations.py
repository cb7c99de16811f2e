"""`/v1/sidegate/organizations`: what projects belong to. Operator only, as a key knows just its own project.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable. All changes but `create` are idempotent.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api.bodies import OBJECT, json_answer, members, read_body
from proxy.api.caller import Caller, conflict, not_found
from proxy.api.names import IDENTIFIER, NAME, is_identifier
from proxy.api.paging import DEFAULT_LIMIT, PAGE, page, page_of
from proxy.api.parameters import read_query
from proxy.api.shapes import MOMENT, TEXT, describes, obj
from proxy.api.shapes import OBJECT as ANY
from proxy.auth.audit import AuditLog
from proxy.tenants.store import Organization, TenantStore

DEFAULT: Final = "default-org"
_CHANGED: Final = {"name": NAME, "metadata": OBJECT}
_NEW: Final = {"id": IDENTIFIER, **_CHANGED}
_SHAPE: Final = obj("Organization", id=TEXT, name=TEXT, metadata=ANY, createdAt=MOMENT, updatedAt=MOMENT)


class Organizations:
    """Handlers of `/v1/sidegate/organizations`."""

    def __init__(self, store: TenantStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    @describes(page("organizations", _SHAPE), query=PAGE)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], _caller: Caller) -> web.Response:
        """List organizations, by id."""
        values = read_query(request, PAGE)
        limit = values.get("limit", DEFAULT_LIMIT)
        rows = await self._store.organizations(limit + 1, values.get("cursor"))
        return page_of("organizations", rows, limit, document=_document, cursor=lambda row: row.id)

    @describes(_SHAPE)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], _caller: Caller) -> web.Response:
        """Return one organization."""
        read_query(request, {})
        return json_answer(_document(_found(await self._store.organization(_id(arguments)))))

    @describes(_SHAPE, status=201, body=_NEW, required=("id",), refuses=(409,))
    async def create(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Create an organization. Its name defaults to its id."""
        read_query(request, {})
        values = members(await read_body(request), _NEW, required=("id",))
        name = values.get("name", values["id"])
        async with self._audit.change(caller.actor, "organizations.create", None, values["id"], {"name": name}):
            made = await self._store.create_organization(values["id"], name, values.get("metadata", {}))
            if made is None:
                raise conflict("organization_exists", "An organization with this id exists already.", "id")
        return json_answer(_document(made), status=201)

    @describes(_SHAPE, body=_CHANGED)
    async def change(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Change the name, replace the metadata, or both."""
        read_query(request, {})
        values = members(await read_body(request), _CHANGED)
        organization_id = _id(arguments)
        details = {"changed": sorted(values)}
        async with self._audit.change(caller.actor, "organizations.update", None, organization_id, details):
            changed = _found(
                await self._store.change_organization(organization_id, values.get("name"), values.get("metadata"))
            )
        return json_answer(_document(changed))

    @describes(_SHAPE, refuses=(409,))
    async def delete(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Delete an organization without projects, archived ones included; return what it was."""
        read_query(request, {})
        found = _found(await self._store.organization(_id(arguments)))
        if found.id == DEFAULT:
            raise conflict(
                "protected", "The default organization cannot be deleted: new projects belong to it.", "organizationId"
            )
        async with self._audit.change(caller.actor, "organizations.delete", None, found.id):
            if not await self._store.delete_organization(found.id):
                raise conflict(
                    "organization_not_empty",
                    "Projects belong to this organization, archived ones included: move them to another one first.",
                    "organizationId",
                )
        return json_answer(_document(found))


def _id(arguments: Mapping[str, str]) -> str:
    if not is_identifier(arguments["organizationId"]):
        raise not_found("organization", "organizationId")
    return arguments["organizationId"]


def _found(organization: Organization | None) -> Organization:
    if organization is None:
        raise not_found("organization", "organizationId")
    return organization


def _document(organization: Organization) -> dict[str, Any]:
    return {
        "id": organization.id,
        "name": organization.name,
        "metadata": organization.metadata,
        "createdAt": organization.created_at,
        "updatedAt": organization.updated_at,
    }
