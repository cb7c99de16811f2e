"""Request and response bodies of the management API: small JSON objects, read as strictly as query parameters.

Unknown, missing and repeated members and bad values are all reported in one 400, up to 20; `param` names the first.
Numbers with a point or an exponent stay exact decimals.

Source: RFC 8259 sections 4 and 6 (names, numbers); RFC 9110 section 10.1.1 (Expect).
"""

import asyncio
import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from proxy.api.parameters import Parameter, parsed
from proxy.errors import InvalidRequest
from proxy.phases.intake import too_large

_MAX_BODY_BYTES = 16_384
_BODY_S = 10.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Members(tuple[tuple[str, Any], ...]):
    """A JSON object as its members in order, repeated ones included."""


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


def members(text: bytes, known: Mapping[str, Parameter], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of a JSON object by name.

    Raises:
        InvalidRequest: the body is not a JSON object, or as `parameters.parsed`.
    """
    return parsed(_object(text), known, required, "member")


def document(text: bytes) -> dict[str, Any]:
    """Return a JSON object with any members that JSONB can hold.

    Raises:
        InvalidRequest: the body is not such an object.
    """
    try:
        return plain(_object(text))
    except ValueError:
        raise InvalidRequest(f"The request body must be {OBJECT.allowed}.", code="invalid_body") from None


def plain(value: object) -> dict[str, Any]:
    """Return an object inside a body as dicts and lists. Raises ValueError for what JSONB cannot hold."""
    if not isinstance(value, _Members):
        raise ValueError
    try:
        found: dict[str, Any] = _plain(value)
        if b"\\u0000" in orjson.dumps(found):
            raise ValueError
    except (TypeError, RecursionError):  # lone surrogates, whole numbers of more than 64 bits
        raise ValueError from None
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, _Members):
        found = {name: _plain(member) for name, member in value}
        if len(found) != len(value):
            raise ValueError
        return found
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, Decimal | float):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    return value


def _object(text: bytes) -> _Members:
    try:
        found = json.loads(text.decode(), object_pairs_hook=_Members, parse_float=_number)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, _Members):
        raise InvalidRequest("The request body must be a JSON object in UTF-8.", code="invalid_body")
    return found


def _number(literal: str) -> Decimal:
    """Return a number with a point or an exponent exactly; `NaN`, which every parser refuses, if it is out of range."""
    try:
        return Decimal(literal)
    except InvalidOperation:
        return Decimal("NaN")


OBJECT = Parameter(
    plain, "a JSON object without NUL characters, repeated members or numbers beyond 64 bits", {"type": "object"}
)


def dollars(value: Decimal) -> orjson.Fragment:
    """Return an amount as a JSON number with all 9 digits, which never was a float."""
    return orjson.Fragment(f"{value:.9f}")


def json_answer(document: Any, status: int = 200) -> web.Response:
    """Return a JSON response that no cache may store."""
    return web.Response(
        status=status,
        body=orjson.dumps(document, option=orjson.OPT_UTC_Z),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
