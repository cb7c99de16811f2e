"""`/v1/quota/status`, `update`, `reset` and `top`: the limits of a user in a project, and what is used of them.

Both user and project must be named: with a default, one could show or change somebody else's quota by mistake. Names
follow the same rule as those of requests (`auth.identify`), so no limit can be set for a caller that cannot exist.

Bodies are read strictly (`api.bodies`): a limit that was not understood must never count as set. Money stays decimal
from the client's digits to PostgreSQL and back, and is returned as a JSON number with all 9 digits.

A project need not exist yet: scripts set limits before the first request. Whoever would rather be told of a misspelt
one sends `createProject: false`, as the CLI does.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable. All changes are idempotent.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

from proxy.api.answering import LIFE
from proxy.api.bodies import dollars, json_answer, members, read_body
from proxy.api.caller import Caller
from proxy.api.known_projects import missing_project
from proxy.api.names import PRINTABLE
from proxy.api.parameters import FLAG, Parameter, integer, invalid, read_query, whole
from proxy.api.shapes import BOOLEAN, CONDITIONAL, INTEGER, MOMENT, NUMBER, TEXT, array, describes, nullable, obj
from proxy.auth.audit import AuditLog
from proxy.errors import InvalidRequest
from proxy.quota.ledger import Ledger, QuotaRow
from proxy.tenants.store import TenantStore

_MAX_TOKENS = 10**15
_MAX_DOLLARS = 10**9
_NANO = Decimal("1e-9")
_DOLLARS_TEXT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")

_DEFAULT_TOP = 20
_MAX_TOP = 500


def _tokens(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_TOKENS:
        raise ValueError
    return value


def _dollars(value: object) -> Decimal:
    if isinstance(value, str):
        value = Decimal(value) if _DOLLARS_TEXT.fullmatch(value) else None
    elif type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= _MAX_DOLLARS:
        raise ValueError
    exact = value.quantize(_NANO)
    if exact != value:
        raise ValueError
    return exact


_CALLER = {"userId": PRINTABLE, "projectId": PRINTABLE}
_REQUIRED = ("userId", "projectId")
_LIMITS = {
    "maxTokensDaily": Parameter(_tokens, f"a whole number from 0 to {_MAX_TOKENS}", whole(0, _MAX_TOKENS)),
    "maxCostDaily": Parameter(
        _dollars,
        f"dollars from 0 to {_MAX_DOLLARS} with at most 9 digits after the point, as a number or as a string",
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": _MAX_DOLLARS},
                {"type": "string", "pattern": f"^{_DOLLARS_TEXT.pattern}$"},
            ]
        },
    ),
}
_SHAPE = obj(
    "Quota",
    userId=TEXT,
    projectId=TEXT,
    exists=BOOLEAN,
    maxTokensDaily=INTEGER,
    currentTokensToday=INTEGER,
    remainingTokens=INTEGER,
    heldTokens=INTEGER,
    burnedTokens=INTEGER,
    maxCostDaily=NUMBER,
    currentCostToday=NUMBER,
    remainingCost=NUMBER,
    heldCost=NUMBER,
    burnedCost=NUMBER,
    window=INTEGER,
    windowStartedAt=MOMENT,
    resetAt=MOMENT,
    updatedAt=nullable(MOMENT),
)
_CHANGED = _CALLER | _LIMITS | {"createProject": FLAG}
_HINT = " Projects are created by `sidegate projects create`, or by `createProject: true` (`--create-project`)."
_TOP = {"projectId": _CALLER["projectId"], "limit": integer(1, _MAX_TOP)}


class Quotas:
    """Handlers of `/v1/quota`."""

    def __init__(self, ledger: Ledger, audit: AuditLog, tenants: TenantStore, default_project: str) -> None:
        self._ledger = ledger
        self._audit = audit
        self._tenants = tenants
        self._default_project = default_project

    @describes(_SHAPE, query=_CALLER, required=_REQUIRED, **CONDITIONAL)
    async def status(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return one user's quota in a project. A user never seen has `exists: false` and the default limits."""
        user_id, project_id = self._whose(read_query(request, _CALLER, _REQUIRED), caller)
        row = await self._ledger.status(user_id, project_id)
        answer = json_answer(_document(row))
        answer[LIFE] = (row.reset_at - datetime.now(UTC)).total_seconds()
        return answer

    @describes(_SHAPE, body=_CHANGED, required=_REQUIRED, refuses=(404,))
    async def update(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Set one limit or both. The user need not have sent a request before.

        A project that does not exist is created, unless `createProject` is false.
        """
        values = await self._change(request, _CHANGED)
        user_id, project_id = self._whose(values, caller)
        if not values.keys() & _LIMITS.keys():
            raise invalid("maxTokensDaily", "Give `maxTokensDaily`, `maxCostDaily` or both.")
        if not values.get("createProject", True) and project_id != self._default_project:
            if await self._tenants.project(project_id) is None:
                raise await missing_project(self._tenants, caller, project_id, _HINT)
        details = {name: str(value) for name, value in values.items() if name in _LIMITS}
        async with self._audit.change(caller.actor, "quota.update", project_id, user_id, details):
            row = await self._ledger.update(
                user_id, project_id, values.get("maxTokensDaily"), values.get("maxCostDaily")
            )
        return json_answer(_document(row))

    @describes(_SHAPE, body=_CALLER, required=_REQUIRED)
    async def reset(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Start a new window for one user now."""
        user_id, project_id = self._whose(await self._change(request, _CALLER), caller)
        async with self._audit.change(caller.actor, "quota.reset", project_id, user_id):
            row = await self._ledger.reset(user_id, project_id)
            if row is None:
                raise InvalidRequest(
                    "This user has no quota in this project: it has sent no request there and no limit was set.",
                    status=404,
                    code="quota_not_found",
                    param="userId",
                )
        return json_answer(_document(row))

    @describes(obj(quotas=array(_SHAPE)), query=_TOP)
    async def top(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List the quotas closest to their limit, of one project or of all."""
        values = read_query(request, _TOP)
        rows = await self._ledger.top(caller.project(values.get("projectId")), values.get("limit", _DEFAULT_TOP))
        return json_answer({"quotas": [_document(row) for row in rows]})

    async def _change(self, request: web.BaseRequest, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """Return the members of the body; query parameters are refused."""
        read_query(request, {})
        return members(await read_body(request), known, _REQUIRED)

    def _whose(self, values: Mapping[str, Any], caller: Caller) -> tuple[str, str]:
        """Return the user and project of a quota. Raises 404 if the project is not the caller's."""
        caller.check_sees(values["projectId"])
        return values["userId"], values["projectId"]


def _document(row: QuotaRow) -> dict[str, Any]:
    """Return a quota as JSON. `remaining` is what can still be spent, so it includes what replicas hold."""
    return {
        "userId": row.user_id,
        "projectId": row.project_id,
        "exists": row.exists,
        "maxTokensDaily": row.max_tokens,
        "currentTokensToday": row.tokens,
        "remainingTokens": max(row.max_tokens - row.tokens - row.burned_tokens, 0),
        "heldTokens": row.held_tokens,
        "burnedTokens": row.burned_tokens,
        "maxCostDaily": dollars(row.max_cost),
        "currentCostToday": dollars(row.cost),
        "remainingCost": dollars(max(row.max_cost - row.cost - row.burned_cost, Decimal(0))),
        "heldCost": dollars(row.held_cost),
        "burnedCost": dollars(row.burned_cost),
        "window": row.window,
        "windowStartedAt": row.started_at,
        "resetAt": row.reset_at,
        "updatedAt": row.updated_at if row.exists else None,
    }
