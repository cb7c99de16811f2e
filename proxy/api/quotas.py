"""`/v1/quota/status`, `update`, `reset` and `top`: what callers may use, what they have used, and changing the limits.

A caller is a user in a project, so both are always named: a default would show, or change, somebody else's quota.
Names follow the rule that requests are held to (`auth.identify`), so a limit never waits for a caller that cannot come.

Bodies are small JSON objects, read as strictly as query parameters: unknown members, members given twice and bad values
are all reported in one 400; `param` names the first. A limit that was not understood must never count as set. Money is
decimal from the client's digits to PostgreSQL and back, and leaves as a JSON number with all 9 digits.

Failure mode: leaves of `errors`; a database that is away is 503. All changes may be sent again.
Source: RFC 8259 sections 4 and 6 (names, numbers); RFC 9110 section 10.1.1 (Expect).
"""

import asyncio
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from proxy.api.parameters import Parameter, integer, read
from proxy.config.names import nearest, shown
from proxy.errors import InvalidRequest
from proxy.intake import too_large
from proxy.quota.ledger import Ledger, QuotaRow

_MAX_NAME = 256
_MAX_TOKENS = 10**15
_MAX_DOLLARS = 10**9
_NANO = Decimal("1e-9")
_DOLLARS_TEXT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")

_MAX_BODY_BYTES = 16_384
_BODY_S = 10.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

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
    name: Parameter(_name, f"1 to {_MAX_NAME} printable characters without blanks around them")
    for name in ("userId", "projectId")
}
_LIMITS = {
    "maxTokensDaily": Parameter(_tokens, f"a whole number from 0 to {_MAX_TOKENS}"),
    "maxCostDaily": Parameter(
        _dollars,
        f"dollars from 0 to {_MAX_DOLLARS} with at most 9 digits after the point, as a number or as a text",
    ),
}
_TOP = {"projectId": _CALLER["projectId"], "limit": integer(1, _MAX_TOP)}


class Quotas:
    """Handlers of the noun."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def status(self, request: web.BaseRequest, _arguments: Mapping[str, str]) -> web.Response:
        """Answer with one caller's quota; one never seen has the limits that it would get, and `exists: false`."""
        caller = _caller(read(_query(request), _CALLER))
        return json_answer(_document(await self._ledger.status(*caller)))

    async def update(self, request: web.BaseRequest, _arguments: Mapping[str, str]) -> web.Response:
        """Set one limit or both; answer with the quota. The caller need not have been seen."""
        values = await self._change(request, _CALLER | _LIMITS)
        caller = _caller(values)
        if not values.keys() & _LIMITS.keys():
            raise _invalid("maxTokensDaily", "Give `maxTokensDaily`, `maxCostDaily` or both.")
        row = await self._ledger.update(*caller, values.get("maxTokensDaily"), values.get("maxCostDaily"))
        return json_answer(_document(row))

    async def reset(self, request: web.BaseRequest, _arguments: Mapping[str, str]) -> web.Response:
        """Start a new window for one caller now; answer with the quota."""
        row = await self._ledger.reset(*_caller(await self._change(request, _CALLER)))
        if row is None:
            raise InvalidRequest(
                "This user has no quota in this project: it has sent no request there, and no limit was set.",
                status=404,
                code="quota_not_found",
                param="userId",
            )
        return json_answer(_document(row))

    async def top(self, request: web.BaseRequest, _arguments: Mapping[str, str]) -> web.Response:
        """Answer with the quotas that are used up most, of one project or of all."""
        values = read(_query(request), _TOP)
        rows = await self._ledger.top(values.get("projectId"), values.get("limit", _DEFAULT_TOP))
        return json_answer({"quotas": [_document(row) for row in rows]})

    async def _change(self, request: web.BaseRequest, known: Mapping[str, Parameter]) -> dict[str, Any]:
        """Return the members of the body of a request that takes no query parameters."""
        read(_query(request), {})
        return _members(await read_body(request), known)


class _Members(tuple[tuple[str, Any], ...]):
    """An object of JSON as its members in order, those given twice included."""


async def read_body(request: web.BaseRequest, limit_bytes: int = _MAX_BODY_BYTES) -> bytes:
    """Return the whole body.

    Raises:
        InvalidRequest: 413 above the limit, 408 if it takes too long, 400 if its framing is broken.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(_CONTINUE)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > limit_bytes:
                    raise too_large(limit_bytes)
    except TimeoutError:
        message = f"The request body did not arrive within {_BODY_S:g} s."
        raise InvalidRequest(message, status=408, code="request_timeout") from None
    except (web.RequestPayloadError, BadHttpMessage):
        raise InvalidRequest("The framing of the request body is broken.", code="invalid_body") from None
    return bytes(body)


def _members(body: bytes, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of a JSON object by name.

    Raises:
        InvalidRequest: it is none, or names every mistake in it and what would be right.
    """
    try:
        document = json.loads(body.decode(), object_pairs_hook=_Members, parse_float=_number)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, _Members):
        raise InvalidRequest("The request body must be a JSON object in UTF-8.", code="invalid_body")
    values: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for name, value in document:
        if name not in known:
            mistakes[name] = f"Unknown member `{shown(name)}`{_suggestion(name, known)}."
        elif name in values:
            mistakes[name] = f"`{name}` is given twice."
        else:
            try:
                values[name] = known[name].parse(value)
            except ValueError:
                mistakes[name] = f"`{name}` must be {known[name].allowed}."
    if mistakes:
        message = f"{' '.join(mistakes.values())} Known members: {', '.join(sorted(known))}."
        raise _invalid(next(iter(mistakes)), message)
    return values


def _number(literal: str) -> Decimal:
    """Return a number with a point or an exponent, exactly; `NaN`, which no limit may be, if it is out of all range."""
    try:
        return Decimal(literal)
    except InvalidOperation:
        return Decimal("NaN")


def _suggestion(name: str, known: Mapping[str, Parameter]) -> str:
    close = nearest(name, known)
    return f"; did you mean `{close}`?" if close else ""


def _caller(values: Mapping[str, Any]) -> tuple[str, str]:
    """Return user and project. Raises InvalidRequest if one is not named."""
    for name in _CALLER:
        if name not in values:
            raise _invalid(name, f"`{name}` is missing: a quota is that of a user in a project.")
    return values["userId"], values["projectId"]


def _invalid(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_parameter", param=shown(param))


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


def json_answer(document: Any) -> web.Response:
    """Return an answer that nobody keeps."""
    return web.Response(
        body=orjson.dumps(document, option=orjson.OPT_UTC_Z),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
