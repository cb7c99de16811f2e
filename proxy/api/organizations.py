"""`/v1/sidegate/organizations`: what projects belong to. For the operator alone: a key knows its own project only.

Failure mode: leaves of `errors`; a database that is away is 503. All changes but `create` may be sent again.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api.bodies import OBJECT, invalid, json_answer, members, read_body
from proxy.api.caller import Caller, conflict, not_found
from proxy.api.names import IDENTIFIER, MAX_NAME, NAME, is_identifier
from proxy.api.parameters import integer, read, text
from proxy.api.shapes import MOMENT, TEXT, describes, obj, page
from proxy.api.shapes import OBJECT as ANY
from proxy.auth.audit import AuditLog
from proxy.tenants.store import Organization, TenantStore

DEFAULT: Final = "default-org"
_LISTED: Final = {"limit": integer(1, 500), "cursor": text(MAX_NAME)}
_CHANGED: Final = {"name": NAME, "metadata": OBJECT}
_NEW: Final = {"id": IDENTIFIER, **_CHANGED}
_SHAPE: Final = obj("Organization", id=TEXT, name=TEXT, metadata=ANY, createdAt=MOMENT, updatedAt=MOMENT)


class Organizations:
    """Handlers of the noun."""

    def __init__(self, store: TenantStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    @describes(page("organizations", _SHAPE), query=_LISTED)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], _caller: Caller) -> web.Response:
        """Answer with organizations by id."""
        values = read(_query(request), _LISTED)
        limit = values.get("limit", 100)
        found = await self._store.organizations(limit + 1, values.get("cursor"))
        return json_answer(
            {
                "organizations": [_document(each) for each in found[:limit]],
                "nextCursor": found[limit - 1].id if len(found) > limit else None,
            }
        )

    @describes(_SHAPE)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], _caller: Caller) -> web.Response:
        """Answer with one organization."""
        read(_query(request), {})
        return json_answer(_document(_found(await self._store.organization(_id(arguments)))))

    @describes(_SHAPE, status=201, body=_NEW, required=("id",), refuses=(409,))
    async def create(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Make an organization; its name is its id unless it is given."""
        read(_query(request), {})
        values = members(await read_body(request), _NEW)
        if "id" not in values:
            raise invalid("id", "`id` is missing.")
        name = values.get("name", values["id"])
        async with self._audit.change(caller.actor, "organizations.create", None, values["id"], {"name": name}):
            made = await self._store.create_organization(values["id"], name, values.get("metadata", {}))
            if made is None:
                raise conflict("organization_exists", "There is an organization with this id.", "id")
        return json_answer(_document(made), status=201)

    @describes(_SHAPE, body=_CHANGED)
    async def change(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Change the name, the metadata as a whole, or both."""
        read(_query(request), {})
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
        """Delete an organization that has no projects, archived ones included; answer with what it was."""
        read(_query(request), {})
        found = _found(await self._store.organization(_id(arguments)))
        if found.id == DEFAULT:
            raise conflict("protected", "The default organization is where new projects come to be.", "organizationId")
        async with self._audit.change(caller.actor, "organizations.delete", None, found.id):
            if not await self._store.delete_organization(found.id):
                raise conflict(
                    "organization_not_empty",
                    "Projects belong to this organization, archived ones included: move them to another one first.",
                    "organizationId",
                )
        return json_answer(_document(found))


def _query(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[2]


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
