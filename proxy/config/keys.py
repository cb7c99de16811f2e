"""The schema as a flat table: one row per key, derived from the models.

Everything that has to know "which keys are there" reads this table: the file reader, the environment overlay, the
suggestions, `config show` and the generated documents. So a key that is added to the schema is known everywhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from proxy.config.problems import KeyPath
from proxy.config.schema import Config
from proxy.config.units import Section

Kind = Literal["text", "secret", "choice", "flag", "integer", "number", "mapping", "list"]

_KINDS: Final[Mapping[Any, Kind]] = MappingProxyType(
    {str: "text", SecretStr: "secret", bool: "flag", int: "integer", float: "number", Decimal: "number"}
)
_UNITS: Final = (
    ("_per_s", "bytes per second"),
    ("_bytes", "bytes"),
    ("_ms", "milliseconds"),
    ("_days", "days"),
    ("_s", "seconds"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration."""

    path: KeyPath
    kind: Kind
    optional: bool
    """None is a legal value and means what the description says."""
    choices: tuple[str, ...]
    """All values of a `choice`; empty for every other kind."""
    depth: int
    """How many levels a `mapping` has; 0 for every other kind."""
    hidden: bool
    """Values may be secret: never shown, and references (`${NAME}`, `file:/path`) are resolved."""
    default: Any
    description: str

    @property
    def name(self) -> str:
        """The dotted name."""
        return ".".join(self.path)

    def fits(self, value: object) -> bool:
        """Tell whether a value has the right type; its range is the schema's business."""
        match self.kind:
            case "choice":
                return value in self.choices
            case "flag":
                return isinstance(value, bool)
            case "integer":
                return isinstance(value, int) and not isinstance(value, bool)
            case "number":
                return isinstance(value, int | Decimal) and not isinstance(value, bool)
            case "mapping":
                return isinstance(value, dict)
            case "list":
                return isinstance(value, list)
            case "text" | "secret":
                return isinstance(value, str)

    def expectation(self) -> str:
        """Return what a value of the wrong type should have been."""
        match self.kind:
            case "choice":
                return f"must be one of {', '.join(self.choices)}"
            case "flag":
                return "must be true or false"
            case "integer":
                return f"must be a whole number{self._measure()}"
            case "number":
                return f"must be a number{self._measure()}"
            case "mapping":
                return "must be a mapping of names to values"
            case "list":
                return "must be a list"
            case "text" | "secret":
                return "must be text; put it in quotes"

    @property
    def unit(self) -> str:
        """What a number counts, as its name tells; empty where that tells nothing."""
        return next((unit for ending, unit in _UNITS if self.path[-1].endswith(ending)), "")

    def _measure(self) -> str:
        return f" of {self.unit}, without a unit" if self.unit else ""


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """Strip `Annotated` and `| None` from an annotation and tell whether None was allowed."""
    if get_origin(annotation) is Annotated:
        return _unwrap(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        (inner,) = (part for part in get_args(annotation) if part is not NoneType)
        return _unwrap(inner)[0], True
    return annotation, False


def _mapping_depth(annotation: Any) -> int:
    inner, _ = _unwrap(annotation)
    return 1 + _mapping_depth(get_args(inner)[1]) if get_origin(inner) is dict else 0


def _kind(inner: Any, choices: tuple[str, ...], depth: int) -> Kind:
    if choices:
        return "choice"
    if get_origin(inner) is tuple:
        return "list"
    return "mapping" if depth else _KINDS[inner]


def _key(path: KeyPath, info: FieldInfo, default: Any) -> Key:
    inner, optional = _unwrap(info.annotation)
    choices: tuple[str, ...] = get_args(inner) if get_origin(inner) is Literal else ()
    depth = _mapping_depth(inner)
    extra = info.json_schema_extra
    write_only = isinstance(extra, dict) and bool(extra.get("writeOnly"))
    return Key(
        path=path,
        kind=_kind(inner, choices, depth),
        optional=optional,
        choices=choices,
        depth=depth,
        hidden=write_only or inner is SecretStr,
        default=default,
        description=info.description or "",
    )


def _walk(section: Section, above: KeyPath) -> Iterator[Key | KeyPath]:
    """Yield the keys of a section in the order of the schema, and the path of each section before its keys."""
    for name, info in type(section).model_fields.items():
        value, path = getattr(section, name), (*above, name)
        if isinstance(value, Section):
            yield path
            yield from _walk(value, path)
        else:
            yield _key(path, info, value)


_ALL: Final = tuple(_walk(Config(), ()))

KEYS: Final[Mapping[KeyPath, Key]] = MappingProxyType({item.path: item for item in _ALL if isinstance(item, Key)})
"""Every key, in the order of the schema."""

SECTIONS: Final[frozenset[KeyPath]] = frozenset(item for item in _ALL if not isinstance(item, Key)) | {()}
"""The path of every section; `()` is the document itself."""


def children(section: KeyPath) -> tuple[str, ...]:
    """Return the names directly below a section, in the order of the schema."""
    names = (path[len(section)] for path in KEYS if path[: len(section)] == section)
    return tuple(dict.fromkeys(names))
