"""What a request requires of its answer: the requested JSON schema, the available tools.

Rule of the file: pure; a member of the wrong type counts as absent, because the provider validates it. Schemas are
untrusted and only evaluated by `json_schema`.

Source: OpenAI API reference: `response_format` and `tools` of chat completions, `text.format` and `tools` of responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.exchange import Dialect


@dataclass(slots=True)
class Expected:
    """The requirements for an answer."""

    is_json: bool = False
    """The text must be a JSON document: an object, or one that conforms to `schema`."""
    schema: Any = None
    """`None` if any object is acceptable."""
    functions: dict[str, Any] = field(default_factory=dict)
    """The functions that may be called, and the schema of their arguments, `None` without one."""

    @property
    def needs_schemas(self) -> bool:
        """True if a schema may have to be evaluated, which may take long."""
        return self.schema is not None or any(schema is not None for schema in self.functions.values())


def expected_of(dialect: Dialect, document: Mapping[str, Any]) -> Expected:
    """Return what a request requires. `dialect`: chat or responses."""
    if dialect == "responses":
        form = _object(_object(document.get("text")).get("format"))
        held = form
    else:
        form = _object(document.get("response_format"))
        held = _object(form.get("json_schema"))
    expected = Expected(is_json=form.get("type") in ("json_schema", "json_object"))
    if form.get("type") == "json_schema":
        expected.schema = held.get("schema")
    for tool in _objects(document.get("tools")) + [{"function": one} for one in _objects(document.get("functions"))]:
        function = _object(tool.get("function")) or (tool if tool.get("type") == "function" else {})
        if type(name := function.get("name")) is str:
            expected.functions[name] = function.get("parameters")
    return expected


def _object(value: Any) -> Mapping[str, Any]:
    return value if type(value) is dict else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if type(one) is dict] if type(value) is list else []
