"""`/v1/sidegate/projects/{projectId}/members` and `/v1/sidegate/users`: the roles of users in projects.

Nobody can grant a role above his own, or change a member whose role is higher. A member who is removed loses the
project's keys for good; if he is added again, he needs new ones. A project may lose its last owner; the operator can
then name another.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable. All changes are idempotent.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

from aiohttp import web

from proxy.api.bodies import json_answer, members, read_body
from proxy.api.caller import Caller, not_found
from proxy.api.known_projects import missing_project
from proxy.api.names import IDENTIFIER, MAX_NAME, is_identifier
from proxy.api.paging import DEFAULT_LIMIT, PAGE, page, page_of
from proxy.api.parameters import invalid, one_of, read_query, text
from proxy.api.projects import found
from proxy.api.shapes import INTEGER, MOMENT, TEXT, array, describes, obj
from proxy.api.shapes import one_of as one_word_of
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore
from proxy.auth.roles import Role
from proxy.auth.store import Member, MemberStore, User
from proxy.tenants.store import TenantStore

_USERS: Final = {"projectId": text(MAX_NAME), "userId": text(MAX_NAME), **PAGE}
_ROLE: Final = {"role": one_of(get_args(Role))}
_ROLES: Final = one_word_of(*get_args(Role))
_SHAPE: Final = obj("Member", userId=TEXT, role=_ROLES, createdAt=MOMENT)
_USER: Final = obj("User", userId=TEXT, roles=array(obj(projectId=TEXT, role=_ROLES)))


class Members:
    """Handlers of a project's members and of `/v1/sidegate/users`."""

    def __init__(
        self, store: MemberStore, tenants: TenantStore, keys: KeyStore, keyring: Keyring, audit: AuditLog
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._keys = keys
        self._keyring = keyring
        self._audit = audit

    @describes(page("members", _SHAPE), query=PAGE)
    async def list(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List the members of a project, by user id."""
        values = read_query(request, PAGE)
        project = found(await self._tenants.project(caller.project_in(arguments)))
        limit = values.get("limit", DEFAULT_LIMIT)
        rows = await self._store.list(project.id, limit + 1, values.get("cursor"))
        return page_of("members", rows, limit, document=_document, cursor=lambda row: row.user_id)

    @describes(_SHAPE, body=_ROLE, required=("role",))
    async def put(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Give a user a role in a project."""
        read_query(request, {})
        values = members(await read_body(request), _ROLE, required=("role",))
        project, user_id = caller.project_in(arguments), arguments["userId"]
        if not is_identifier(user_id):
            raise invalid("userId", f"`userId` must be {IDENTIFIER.allowed}.")
        caller.check_outranks(values["role"])
        async with self._audit.change(caller.actor, "members.set", project, user_id, values):
            member = await self._store.set(project, user_id, values["role"], caller.role)
            if member is None:
                if await self._tenants.project(project) is None:
                    raise await missing_project(self._tenants, caller, project)
                raise caller.outranked(await self._keys.role(user_id, project))
        await self._keyring.recheck(project, user_id)
        return json_answer(_document(member))

    @describes(obj(userId=TEXT, projectId=TEXT, revokedKeys=INTEGER))
    async def remove(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Remove a user from a project and revoke the user's keys there; return how many."""
        read_query(request, {})
        project, user_id = caller.project_in(arguments), arguments["userId"]
        if not is_identifier(user_id):
            raise not_found("member", "userId")
        async with self._audit.change(caller.actor, "members.remove", project, user_id):
            ended = await self._store.remove(project, user_id, caller.role)
            if ended is None:
                role = await self._keys.role(user_id, project)
                raise not_found("member", "userId") if role is None else caller.outranked(role)
        await self._keyring.recheck(project, user_id)
        return json_answer({"userId": user_id, "projectId": project, "revokedKeys": ended})

    @describes(page("users", _USER), query=_USERS)
    async def users(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List users and their roles in the projects that the caller sees, by user id."""
        values = read_query(request, _USERS)
        limit = values.get("limit", DEFAULT_LIMIT)
        rows = await self._store.users(
            caller.project(values.get("projectId")), values.get("userId"), limit + 1, values.get("cursor")
        )
        return page_of("users", rows, limit, document=_user_document, cursor=lambda row: row.user_id)


def _document(member: Member) -> dict[str, Any]:
    return {"userId": member.user_id, "role": member.role, "createdAt": member.created_at}


def _user_document(user: User) -> dict[str, Any]:
    return {"userId": user.user_id, "roles": user.roles}
