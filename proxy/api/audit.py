"""`/v1/sidegate/audit` and `/v1/sidegate/whoami`: who changed what, and what the caller may do."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from aiohttp import web

from proxy.api.bodies import json_answer
from proxy.api.caller import Caller
from proxy.api.names import MAX_NAME
from proxy.api.paging import DEFAULT_LIMIT, PAGE, page, page_of
from proxy.api.parameters import integer, read_query, text
from proxy.api.shapes import MOMENT, OBJECT, TEXT, array, describes, nullable, obj, one_of
from proxy.auth.audit import AuditLog, Entry, Outcome
from proxy.auth.roles import ROLES

_LISTED: Final = {"projectId": text(MAX_NAME), **PAGE, "cursor": integer(1, 10**9)}

_CHANGE: Final = obj(
    "Change",
    id=TEXT,
    at=MOMENT,
    actor=TEXT,
    keyId=nullable(TEXT),
    peer=nullable(TEXT),
    action=TEXT,
    projectId=nullable(TEXT),
    target=nullable(TEXT),
    details=OBJECT,
    outcome=one_of(*get_args(Outcome)),
)
_WHO: Final = obj(
    "Whoami",
    userId=nullable(TEXT),
    projectId=nullable(TEXT),
    role=nullable(one_of(*ROLES, "operator")),
    keyId=nullable(TEXT),
    scopes=OBJECT,
    expiresAt=nullable(MOMENT),
    permissions=array(TEXT),
    authMode=nullable(one_of("trusted", "keys")),
)


class Audit:
    """Handlers of `/v1/sidegate/audit` and `/v1/sidegate/whoami`.

    `auth_mode`: how this process identifies who calls models; `None` if it serves none.
    """

    def __init__(self, audit: AuditLog, auth_mode: str | None) -> None:
        self._audit = audit
        self._auth_mode = auth_mode

    @describes(page("changes", _CHANGE), query=_LISTED)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List entries of the audit log, newest first."""
        values = read_query(request, _LISTED)
        limit = values.get("limit", DEFAULT_LIMIT)
        rows = await self._audit.list(caller.project(values.get("projectId")), limit + 1, values.get("cursor"))
        return page_of("changes", rows, limit, document=_document, cursor=lambda row: str(row.id))

    @describes(_WHO)
    async def whoami(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return who the caller is, its role, and what that allows."""
        read_query(request, {})
        return json_answer(
            {
                "userId": caller.user_id,
                "projectId": caller.project_id,
                "role": "operator" if caller.is_operator else caller.role,
                "keyId": caller.key.id if caller.key else None,
                "scopes": caller.key.scopes if caller.key else {},
                "expiresAt": caller.key.expires_at if caller.key else None,
                "permissions": sorted(caller.permissions),
                "authMode": self._auth_mode,
            }
        )


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": entry.at,
        "actor": entry.actor,
        "keyId": entry.key_id,
        "peer": entry.peer,
        "action": entry.action,
        "projectId": entry.project_id,
        "target": entry.target,
        "details": entry.details,
        "outcome": entry.outcome,
    }
