"""Descriptions of endpoints: a few words of JSON Schema, written beside the handler.

    @describes(obj(id=TEXT, archivedAt=nullable(MOMENT)), query=_LISTED, refuses=(409,))
    async def list(self, ...)

Input is not described twice: `query` and `body` are the tables that the handler itself reads with. Output is strict:
every member is named and no other allowed, so the tests catch a member that was added and not described. A schema with
a title becomes a component of the OpenAPI document. The text about an endpoint is the docstring of its handler.

Source: JSON Schema 2020-12; OpenAPI 3.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from proxy.api.parameters import Parameter

Schema = Mapping[str, Any]
_Handler = TypeVar("_Handler", bound=Callable[..., Any])

TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
DAY: Final[Schema] = {"type": "string", "format": "date"}
ANY: Final[Schema] = {}
OBJECT: Final[Schema] = {"type": "object"}
"""With any members."""


def obj(title: str | None = None, /, **members: Schema) -> Schema:
    """Return an object with exactly these members."""
    schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    return {"title": title, **schema} if title else schema


def nullable(schema: Schema) -> Schema:
    """Return a schema that also allows null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(schema: Schema) -> Schema:
    """Return an array of these."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """Return an object with arbitrary member names, whose values all have this schema."""
    return {"type": "object", "additionalProperties": schema}


def one_of(*names: str) -> Schema:
    """Return an enumeration of strings."""
    return {"type": "string", "enum": list(names)}


@dataclass(frozen=True, slots=True)
class Description:
    """What an endpoint takes and returns."""

    answer: Schema
    status: int = 200
    query: Mapping[str, Parameter] = field(default_factory=dict)
    body: Mapping[str, Parameter] | Schema | None = None
    """The table of members, or the schema of a body that is read in another way; `None`: no body."""
    is_body_optional: bool = False
    required: tuple[str, ...] = ()
    """Parameters, or members of the body, that must be given."""
    headers: tuple[str, ...] = ()
    """Request headers it reads, beside `Authorization`."""
    tells: tuple[str, ...] = ()
    """Response headers."""
    refuses: tuple[int, ...] = ()
    """Error statuses beside those that every endpoint of its kind has (see `openapi`)."""
    media_type: str = "application/json"


CONDITIONAL: Final[Mapping[str, Any]] = {"headers": ("If-None-Match",), "tells": ("ETag",)}
"""Arguments of `describes` for an endpoint that answers 304 to a client that is up to date."""


def describes(answer: Schema, **facts: Any) -> Callable[[_Handler], _Handler]:
    """Describe a handler."""

    def attach(handler: _Handler) -> _Handler:
        handler.description = Description(answer, **facts)  # type: ignore[attr-defined]
        return handler

    return attach
