"""`/v1/sidegate/projects/{projectId}/members` and `/v1/sidegate/users`: who is what in which project.

Nobody gives a role above his own, or touches somebody whose role is. A member who is removed loses the keys of the
project for good: whoever comes back gets new ones. A project may be without an owner; then the operator names one.

Failure mode: leaves of `errors`; a database that is away is 503. All changes may be sent again.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

from aiohttp import web

from proxy.api.bodies import invalid, json_answer, members, read_body
from proxy.api.caller import Caller, not_found
from proxy.api.names import IDENTIFIER, MAX_NAME, is_identifier
from proxy.api.parameters import integer, one_of, read, text
from proxy.api.projects import found, project_id
from proxy.api.shapes import INTEGER, MOMENT, TEXT, array, describes, obj, page
from proxy.api.shapes import one_of as one_word_of
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore
from proxy.auth.roles import Role
from proxy.auth.store import Member, MemberStore
from proxy.tenants.store import TenantStore

_LISTED: Final = {"limit": integer(1, 500), "cursor": text(MAX_NAME)}
_USERS: Final = {"projectId": text(MAX_NAME), "userId": text(MAX_NAME), **_LISTED}
_ROLE: Final = {"role": one_of(get_args(Role))}
_ROLES: Final = one_word_of(*get_args(Role))
_SHAPE: Final = obj("Member", userId=TEXT, role=_ROLES, createdAt=MOMENT)
_USER: Final = obj("User", userId=TEXT, roles=array(obj(projectId=TEXT, role=_ROLES)))


class Members:
    """Handlers of both nouns."""

    def __init__(
        self, store: MemberStore, tenants: TenantStore, keys: KeyStore, keyring: Keyring, audit: AuditLog
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._keys = keys
        self._keyring = keyring
        self._audit = audit

    @describes(page("members", _SHAPE), query=_LISTED)
    async def list(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the members of a project by name."""
        values = read(_query(request), _LISTED)
        project = found(await self._tenants.project(project_id(arguments, caller)))
        limit = values.get("limit", 100)
        page = await self._store.list(project.id, limit + 1, values.get("cursor"))
        return json_answer(
            {
                "members": [_document(member) for member in page[:limit]],
                "nextCursor": page[limit - 1].user_id if len(page) > limit else None,
            }
        )

    @describes(_SHAPE, body=_ROLE, required=("role",))
    async def put(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Give a user a role in a project; answer with the member."""
        read(_query(request), {})
        values = members(await read_body(request), _ROLE)
        if "role" not in values:
            raise invalid("role", "`role` is missing.")
        project, user_id = project_id(arguments, caller), arguments["userId"]
        if not is_identifier(user_id):
            raise invalid("userId", f"`userId` must be {IDENTIFIER.allowed}.")
        caller.check_outranks(values["role"])
        async with self._audit.change(caller.actor, "members.set", project, user_id, values):
            member = await self._store.set(project, user_id, values["role"], caller.role)
            if member is None:
                found(await self._tenants.project(project))
                raise caller.outranked(await self._keys.role(user_id, project))
        await self._keyring.recheck(project, user_id)
        return json_answer(_document(member))

    @describes(obj(userId=TEXT, projectId=TEXT, revokedKeys=INTEGER))
    async def remove(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Take a user out of a project and end its keys there; answer with how many those were."""
        read(_query(request), {})
        project, user_id = project_id(arguments, caller), arguments["userId"]
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
        """Answer with users by name and with their roles, as far as the caller sees the projects."""
        values = read(_query(request), _USERS)
        limit = values.get("limit", 100)
        page = await self._store.users(
            caller.project(values.get("projectId")), values.get("userId"), limit + 1, values.get("cursor")
        )
        return json_answer(
            {
                "users": [{"userId": user.user_id, "roles": user.roles} for user in page[:limit]],
                "nextCursor": page[limit - 1].user_id if len(page) > limit else None,
            }
        )


def _query(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[2]


def _document(member: Member) -> dict[str, Any]:
    return {"userId": member.user_id, "role": member.role, "createdAt": member.created_at}
