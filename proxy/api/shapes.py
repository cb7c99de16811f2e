"""How answers of our own API are described: JSON Schema in few words, written beside the function that answers.

    @describes(obj(id=TEXT, archivedAt=nullable(MOMENT)), query=_LISTED, refuses=(409,))
    async def list(self, ...)

What comes in is not described twice: `query` and `body` are the very tables that the handler reads with. What goes out
is strict, every member named and none more, so a member that is added is missed by the tests. A schema with a title
becomes a component of the document. The text about an endpoint is the docstring of its handler.

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
"""Of any members."""


def obj(title: str | None = None, /, **members: Schema) -> Schema:
    """Return an object with all of these members and no other."""
    schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    return {"title": title, **schema} if title else schema


def nullable(schema: Schema) -> Schema:
    """Return what may also be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(schema: Schema) -> Schema:
    """Return a list."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """Return an object whose members have names of their own and all the same form."""
    return {"type": "object", "additionalProperties": schema}


def one_of(*names: str) -> Schema:
    """Return one of some texts."""
    return {"type": "string", "enum": list(names)}


def page(member: str, schema: Schema) -> Schema:
    """Return one page of a list; the next begins where `nextCursor` says."""
    return obj(**{member: array(schema), "nextCursor": nullable(TEXT)})


@dataclass(frozen=True, slots=True)
class Description:
    """What an endpoint takes and gives."""

    answer: Schema
    status: int = 200
    query: Mapping[str, Parameter] = field(default_factory=dict)
    body: Mapping[str, Parameter] | Schema | None = None
    """Members as they are read, or the schema of a body that is read in another way; `None`: there is none."""
    is_body_optional: bool = False
    required: tuple[str, ...] = ()
    """Parameters, or members of the body, that must be given."""
    headers: tuple[str, ...] = ()
    """Request headers that are looked at, beside `Authorization`."""
    tells: tuple[str, ...] = ()
    """Headers of the answer."""
    refuses: tuple[int, ...] = ()
    """Statuses that no other endpoint of this kind has."""
    media_type: str = "application/json"


CONDITIONAL: Final[Mapping[str, Any]] = {"headers": ("If-None-Match",), "tells": ("ETag",)}
"""What `describes` is told of an endpoint that says 304 to whoever has its answer already."""


def describes(answer: Schema, **facts: Any) -> Callable[[_Handler], _Handler]:
    """Describe a handler."""

    def attach(handler: _Handler) -> _Handler:
        handler.description = Description(answer, **facts)  # type: ignore[attr-defined]
        return handler

    return attach
