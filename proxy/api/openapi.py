"""`GET /v1/sidegate/openapi.json`: the management API as an OpenAPI 3.1 document, generated from the table of routes.

A route contributes its `@describes` (`api.shapes`), the docstring of its handler and its permission; a route without a
description is an error that the tests catch. The document is built on first use and served without a key: it says
nothing that the source does not, and the tools that read it have no key.

Source: OpenAPI Specification 3.1.1.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

import orjson
from aiohttp import web

from proxy.api.parameters import Parameter, read_query
from proxy.api.shapes import OBJECT, TEXT, Description, Schema, describes, nullable

_ERROR: Final = {
    "title": "Error",
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "code": nullable(TEXT),
                "param": nullable(TEXT),
                "details": {"type": "object", "additionalProperties": True},
                "resetAt": nullable(TEXT),
            },
            "required": ["message", "type", "code", "param"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}
_REFUSALS: Final[Mapping[int, str]] = {
    400: "A parameter or the body is invalid; `param` names the first mistake.",
    401: "The key is missing, wrong, expired or revoked.",
    403: "The caller's role or the scopes of the key do not allow this.",
    404: "It does not exist, or not for this key.",
    408: "The body did not arrive in time.",
    409: "The change conflicts with the current state.",
    412: "It has changed since it was read.",
    413: "The body is too large.",
    428: "`If-Match` is missing.",
    429: "Too many wrong keys were sent from this address.",
    503: "PostgreSQL is unavailable, or the process is overloaded or shutting down: try again.",
}
_SEGMENT: Final = re.compile(r"{(\w+)}")
_OPERATION: Final = re.compile(r"[^a-zA-Z]+(\w)")


class Row(Protocol):
    """A row of the table of routes."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path; named segments in braces."""

    @property
    def handler(self) -> Any:
        """The function that was described."""

    @property
    def permission(self) -> str | None:
        """What the caller's role must allow; `None`: any valid key will do."""

    @property
    def public(self) -> bool:
        """True if no key is needed."""


def document(table: Iterable[Row], release: str) -> dict[str, Any]:
    """Return the document. Raises LookupError for a handler without a description."""
    components: dict[str, Schema] = {}
    paths: dict[str, dict[str, Any]] = {}
    for row in table:
        paths.setdefault(row.path, {})[row.method.lower()] = _hoisted(_operation(row), components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sidegate",
            "version": release,
            "description": "The management API. Everything else below `/v1/` is relayed to the provider. "
            "Errors have OpenAI's shape.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "The admin key, or `sg-<id>-<secret>`."}
            },
        },
    }


class OpenApi:
    """Serves the document, without a key."""

    def __init__(self) -> None:
        self._table: Sequence[Row] = ()
        self._text: bytes | None = None

    def describe(self, table: Sequence[Row]) -> None:
        """Set the routes of the document."""
        self._table = table

    @describes(OBJECT)
    def get(self, request: web.BaseRequest) -> web.Response:
        """Return this document."""
        read_query(request, {})
        if self._text is None:
            self._text = orjson.dumps(document(self._table, version("sidegate")))
        return web.Response(body=self._text, content_type="application/json", headers={"Cache-Control": "no-cache"})


def _operation(row: Row) -> dict[str, Any]:
    about: Description | None = getattr(row.handler, "description", None)
    if about is None:
        raise LookupError(f"{row.method} {row.path} is not described: put @describes at its handler (api.shapes)")
    text = inspect.getdoc(row.handler) or ""
    summary, _, more = text.partition("\n\n")
    may = "Needs no key." if row.public else f"Needs the permission `{row.permission}`." if row.permission else ""
    operation: dict[str, Any] = {
        "operationId": _OPERATION.sub(lambda found: found[1].upper(), f"{row.method.lower()} {row.path[4:]}").strip(
            "}"
        ),
        "tags": [row.path.split("/")[3 if row.path.startswith("/v1/sidegate/") else 2]],
        "summary": summary.rstrip("."),
        "description": "\n\n".join(part for part in (summary, more, may) if part),
        "parameters": [*_parameters(row, about)],
        "responses": {str(about.status): _answer(about), **_unchanged(about), **_refusals(row, about)},
    }
    if row.public:
        operation["security"] = []
    if row.permission:
        operation["x-permission"] = row.permission
    if about.body is not None:
        operation["requestBody"] = {
            "required": not about.is_body_optional,
            "content": {"application/json": {"schema": _body(about)}},
        }
    return operation


def _parameters(row: Row, about: Description) -> Iterable[dict[str, Any]]:
    for name in _SEGMENT.findall(row.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name, parameter in about.query.items():
        yield {
            "name": name,
            "in": "query",
            "required": name in about.required,
            "description": f"{parameter.allowed[0].upper()}{parameter.allowed[1:]}.",
            "schema": parameter.schema,
        }
    for name in about.headers:
        yield {"name": name, "in": "header", "required": name in about.required, "schema": TEXT}


def _body(about: Description) -> Schema:
    if about.body is None or "type" in about.body:
        return about.body or {}
    members: dict[str, Any] = {}
    for name, parameter in about.body.items():
        assert isinstance(parameter, Parameter)
        members[name] = {**parameter.schema, "description": f"{parameter.allowed[0].upper()}{parameter.allowed[1:]}."}
    required = [name for name in about.required if name in members]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def _answer(about: Description) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Success.", "content": {about.media_type: {"schema": about.answer}}}
    if "format" in about.query:
        answer["content"] |= {media_type: {"schema": TEXT} for media_type in ("text/csv", "application/jsonl")}
    if about.tells:
        answer["headers"] = {name: {"schema": TEXT} for name in about.tells}
    return answer


def _unchanged(about: Description) -> dict[str, Any]:
    if "If-None-Match" not in about.headers:
        return {}
    headers = {"ETag": {"schema": TEXT}}
    return {"304": {"description": "Unchanged: it is what `If-None-Match` names.", "headers": headers}}


def _refusals(row: Row, about: Description) -> dict[str, Any]:
    statuses = {400, *about.refuses, 503}
    if not row.public:
        statuses |= {401, 403, 429}
    if "{" in row.path or "projectId" in about.query or "projectId" in (about.body or {}):
        statuses.add(404)
    if about.body is not None:
        statuses |= {408, 413}
    content = {"application/json": {"schema": _ERROR}}
    return {str(status): {"description": _REFUSALS[status], "content": content} for status in sorted(statuses)}


def _hoisted(value: Any, components: dict[str, Schema]) -> Any:
    """Return a part of the document, with every titled schema moved to the components."""
    if isinstance(value, list | tuple):
        return [_hoisted(entry, components) for entry in value]
    if not isinstance(value, Mapping):
        return value
    found = {name: _hoisted(member, components) for name, member in value.items()}
    title = value.get("title")
    if not isinstance(title, str) or "type" not in value:
        return found
    if components.setdefault(title, found) != found:
        raise ValueError(f"two schemas are called {title}")
    return {"$ref": f"#/components/schemas/{title}"}
