"""`/v1/quota/status`, `update`, `reset` and `top`: what callers may use, what they have used, and changing the limits.

A caller is a user in a project, so both are always named: a default would show, or change, somebody else's quota.
Names follow the rule that requests are held to (`auth.identify`), so a limit never waits for a caller that cannot come.

Bodies are read strictly (`api.bodies`): a limit that was not understood must never count as set. Money is decimal from
the client's digits to PostgreSQL and back, and leaves as a JSON number with all 9 digits.

Failure mode: leaves of `errors`; a database that is away is 503. All changes may be sent again.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
from aiohttp import web

from proxy.api.bodies import invalid, json_answer, members, read_body
from proxy.api.caller import Caller
from proxy.api.parameters import Parameter, integer, read, whole
from proxy.api.shapes import BOOLEAN, CONDITIONAL, INTEGER, MOMENT, NUMBER, TEXT, array, describes, nullable, obj
from proxy.auth.audit import AuditLog
from proxy.errors import InvalidRequest
from proxy.quota.ledger import Ledger, QuotaRow

_MAX_NAME = 256
_MAX_TOKENS = 10**15
_MAX_DOLLARS = 10**9
_NANO = Decimal("1e-9")
_DOLLARS_TEXT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")

_DEFAULT_TOP = 20
_MAX_TOP = 500


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        raise ValueError
    if not value.isprintable() or value != value.strip() or "\ufffd" in value:
        raise ValueError
    return value


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


_CALLER = {
    name: Parameter(
        _name,
        f"1 to {_MAX_NAME} printable characters without blanks around them",
        {"type": "string", "minLength": 1, "maxLength": _MAX_NAME},
    )
    for name in ("userId", "projectId")
}
_LIMITS = {
    "maxTokensDaily": Parameter(_tokens, f"a whole number from 0 to {_MAX_TOKENS}", whole(0, _MAX_TOKENS)),
    "maxCostDaily": Parameter(
        _dollars,
        f"dollars from 0 to {_MAX_DOLLARS} with at most 9 digits after the point, as a number or as a text",
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
_TOP = {"projectId": _CALLER["projectId"], "limit": integer(1, _MAX_TOP)}


class Quotas:
    """Handlers of the noun."""

    def __init__(self, ledger: Ledger, audit: AuditLog) -> None:
        self._ledger = ledger
        self._audit = audit

    @describes(_SHAPE, query=_CALLER, required=("userId", "projectId"), **CONDITIONAL)
    async def status(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with one caller's quota; one never seen has the limits that it would get, and `exists: false`."""
        user_id, project_id = _user(read(_query(request), _CALLER))
        caller.check_sees(project_id)
        return json_answer(_document(await self._ledger.status(user_id, project_id)))

    @describes(_SHAPE, body=_CALLER | _LIMITS, required=("userId", "projectId"))
    async def update(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Set one limit or both; answer with the quota. The caller need not have been seen."""
        values = await self._change(request, _CALLER | _LIMITS)
        user_id, project_id = _user(values)
        caller.check_sees(project_id)
        if not values.keys() & _LIMITS.keys():
            raise invalid("maxTokensDaily", "Give `maxTokensDaily`, `maxCostDaily` or both.")
        details = {name: str(value) for name, value in values.items() if name in _LIMITS}
        async with self._audit.change(caller.actor, "quota.update", project_id, user_id, details):
            row = await self._ledger.update(
                user_id, project_id, values.get("maxTokensDaily"), values.get("maxCostDaily")
            )
        return json_answer(_document(row))

    @describes(_SHAPE, body=_CALLER, required=("userId", "projectId"))
    async def reset(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Start a new window for one caller now; answer with the quota."""
        user_id, project_id = _user(await self._change(request, _CALLER))
        caller.check_sees(project_id)
        async with self._audit.change(caller.actor, "quota.reset", project_id, user_id):
            row = await self._ledger.reset(user_id, project_id)
            if row is None:
                raise InvalidRequest(
                    "This user has no quota in this project: it has sent no request there, and no limit was set.",
                    status=404,
                    code="quota_not_found",
                    param="userId",
                )
        return json_answer(_document(row))

    @describes(obj(quotas=array(_SHAPE)), query=_TOP)
    async def top(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the quotas that are used up most, of one project or of all."""
        values = read(_query(request), _TOP)
        rows = await self._ledger.top(caller.project(values.get("projectId")), values.get("limit", _DEFAULT_TOP))
        return json_answer({"quotas": [_document(row) for row in rows]})

    async def _change(self, request: web.BaseRequest, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """Return the members of the body of a request that takes no query parameters."""
        read(_query(request), {})
        return members(await read_body(request), known)


def _user(values: Mapping[str, Any]) -> tuple[str, str]:
    """Return user and project. Raises InvalidRequest if one is not named."""
    for name in _CALLER:
        if name not in values:
            raise invalid(name, f"`{name}` is missing: a quota is that of a user in a project.")
    return values["userId"], values["projectId"]


def _document(row: QuotaRow) -> dict[str, Any]:
    """Return what is shown of a quota. Remaining is what can still be used, so it includes what replicas hold."""
    return {
        "userId": row.user_id,
        "projectId": row.project_id,
        "exists": row.exists,
        "maxTokensDaily": row.max_tokens,
        "currentTokensToday": row.tokens,
        "remainingTokens": max(row.max_tokens - row.tokens - row.burned_tokens, 0),
        "heldTokens": row.held_tokens,
        "burnedTokens": row.burned_tokens,
        "maxCostDaily": _amount(row.max_cost),
        "currentCostToday": _amount(row.cost),
        "remainingCost": _amount(max(row.max_cost - row.cost - row.burned_cost, Decimal(0))),
        "heldCost": _amount(row.held_cost),
        "burnedCost": _amount(row.burned_cost),
        "window": row.window,
        "windowStartedAt": row.started_at,
        "resetAt": row.reset_at,
        "updatedAt": row.updated_at if row.exists else None,
    }


def _amount(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(f"{value:.9f}")


def _query(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[2]
