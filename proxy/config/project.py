"""The settings of a project, in `projects.config`, over the configuration of the process.

    {"routing": {"defaultLayer": "L1", "maxLayer": "L2", "maxCostPerRequest": 0.05, "allowedModels": ["gpt-4o*"]},
     "security": {"scanPrompts": true, "scanOutputs": true, "redactSecrets": true, "blockedKeywords": ["project zeus"],
                  "secretPatterns": ["ZEUS-[0-9]{8}"], "allowList": ["AKIA2TESTTESTTESTTES"],
                  "promptActions": {"pii": "redact"}, "outputActions": {"command": "block"}},
     "features": {"enableCrossCheck": false, "enableAutoEscalate": false, "enableCache": false},
     "admission": {"priority": "normal", "priorityHeader": false},
     "quota": {...}, "timeZone": "Europe/Berlin"}

`quota` and `timeZone` are read where they are used, by `proxy.quota.limits` and by PostgreSQL. `None`: the
configuration of the process applies.

Rule of the file: anybody with SQL access may write this document, so it is validated member by member. An invalid one
keeps its default, or its other entries if it is a list or an object, and is reported as a problem; values are never
quoted. Pure, never raises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from proxy.config.expressions import Expression
from proxy.config.names import did_you_mean, nearest, shown
from proxy.config.policy import Actions
from proxy.config.units import Dollars

LayerName = Literal["L0", "L1", "L2", "L3"]
Priority = Literal["normal", "critical"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]

READ_ELSEWHERE: Final = frozenset({"quota", "timeZone"})
_MOST_TOLD: Final = 20
"""Mistakes that are told of one part. To find what a misspelt name means takes a millisecond, and a document may have a
hundred thousand of them."""
_Mistake = TypeVar("_Mistake")


class Part(BaseModel):
    """Base of the parts: immutable, named as in JSON, strict about names and types, never quoting values."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, alias_generator=to_camel, populate_by_name=True
    )


class RoutingSettings(Part):
    """Which layers and models the project may use."""

    default_layer: LayerName | None = None
    max_layer: LayerName | None = None
    max_cost_per_request: Dollars | None = None
    """The most that one request may cost in dollars, by its upper bound."""
    allowed_models: Annotated[tuple[Name, ...], Field(max_length=500)] | None = None
    """Names of models; a `*` stands for anything. `None`: every model."""


class SecuritySettings(Part):
    """What is scanned, and the actions for findings."""

    scan_prompts: bool | None = None
    scan_outputs: bool | None = None
    redact_secrets: bool | None = None
    blocked_keywords: Annotated[tuple[Name, ...], Field(max_length=500)] = ()
    secret_patterns: Annotated[tuple[Expression, ...], Field(max_length=100)] = ()
    """What counts as a secret in addition to the rules. RE2 syntax."""
    allow_list: Annotated[tuple[Name, ...], Field(max_length=500)] = ()
    """Exact texts that are never a finding, for any rule."""
    prompt_actions: Actions = Field(default_factory=dict)
    output_actions: Actions = Field(default_factory=dict)


class FeatureSettings(Part):
    """Optional features; off by default."""

    enable_cross_check: bool = False
    enable_auto_escalate: bool = False
    enable_cache: bool = False


class AdmissionSettings(Part):
    """Which requests are admitted when the process is short of CPU time, memory or capacity."""

    priority: Priority = "normal"
    priority_header: bool = False
    """Whether `X-Sidegate-Priority` of a request decides instead."""

    @property
    def may_be_critical(self) -> bool:
        """True if some request of the project can be critical."""
        return self.priority_header or self.priority == "critical"


_ROUTING: Final = RoutingSettings()
_SECURITY: Final = SecuritySettings()
_FEATURES: Final = FeatureSettings()
_ADMISSION: Final = AdmissionSettings()


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """All parts. One object per version of a project's document, so that it can be the key of derived objects."""

    routing: RoutingSettings = _ROUTING
    security: SecuritySettings = _SECURITY
    features: FeatureSettings = _FEATURES
    admission: AdmissionSettings = _ADMISSION
    is_archived: bool = False
    """The project is archived: its requests are refused. Not a member of the document."""


DEFAULT: Final = ProjectSettings()
"""A project without settings."""
ARCHIVED: Final = ProjectSettings(is_archived=True)
"""An archived project."""

_PARTS: Final[Mapping[str, type[Part]]] = {
    "routing": RoutingSettings,
    "security": SecuritySettings,
    "features": FeatureSettings,
    "admission": AdmissionSettings,
}


def parse(document: object) -> tuple[ProjectSettings, tuple[str, ...]]:
    """Return the effective settings, and the problems of `document`, one line each."""
    if not isinstance(document, Mapping):
        return DEFAULT, ("config must be a JSON object",)
    strangers = [name for name in document if not _is_known(name)]
    problems = _told("config", strangers, lambda name: _unknown("config", name, (*_PARTS, *READ_ELSEWHERE)))
    parts: dict[str, Any] = {}
    for name, model in _PARTS.items():
        part, found = _read(name, model, document.get(name))
        problems += found
        if part is not None:
            parts[name] = part
    return ProjectSettings(**parts) if parts else DEFAULT, tuple(problems)


def validate(document: object) -> tuple[str, ...]:
    """Return the problems of `document`, one line each; `quota` and `timeZone` are validated elsewhere.

    Takes up to 50 ms per pattern: call it in a thread.
    """
    return parse(document)[1]


def _is_known(name: object) -> bool:
    return name in _PARTS or name in READ_ELSEWHERE


def _read(name: str, model: type[Part], value: object) -> tuple[Part | None, list[str]]:
    """Return one part built from its valid members, and the problems of the others."""
    if value is None:
        return None, []
    if not isinstance(value, Mapping):
        return None, [f"{name} must be a JSON object"]
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        errors = error.errors()
        first = {str(each["loc"][0]): each for each in reversed(errors)}
        wrong = [first[member] for member in sorted(first)]
        return model.model_validate(_without(value, errors)), _told(
            name, wrong, lambda each: _problem(name, model, each)
        )


def _without(part: Mapping[Any, Any], errors: Sequence[Any]) -> dict[Any, Any]:
    """Return `part` without what is wrong: the entries of a list or object, where those are, else the whole member."""
    wrong: dict[str, set[Any]] = {}
    for error in errors:
        member, *rest = error["loc"]
        wrong.setdefault(str(member), set()).add(rest[0] if rest else None)
    right = {member: kept for member, kept in part.items() if str(member) not in wrong}
    for member, entries in wrong.items():
        given = part.get(member)
        if isinstance(given, list) and entries <= set(range(len(given))):
            right[member] = [entry for index, entry in enumerate(given) if index not in entries]
        elif isinstance(given, Mapping) and entries <= given.keys():
            right[member] = {key: entry for key, entry in given.items() if key not in entries}
    return right


def _told(part: str, mistakes: Sequence[_Mistake], tell: Callable[[_Mistake], str]) -> list[str]:
    """Return a line for each mistake, and one for all beyond the number that is told."""
    lines = sorted(map(tell, mistakes[:_MOST_TOLD]))
    left = len(mistakes) - len(lines)
    return [*lines, f"{part} has {left} more mistakes"] if left else lines


def _problem(part: str, model: type[Part], error: Any) -> str:
    """Return one problem: the member, its entry if it has several, and what it must be."""
    member, *rest = error["loc"]
    if error["type"] == "extra_forbidden" and not rest:
        return _unknown(part, member, [info.alias or name for name, info in model.model_fields.items()])
    entry = "".join(f"[{step}]" if isinstance(step, int) else f".{shown(str(step))}" for step in rest)
    return f"{part}.{shown(str(member))}{entry}: {error['msg'].removeprefix('Value error, ')}"


def _unknown(part: str, name: object, known: Any) -> str:
    return f"{part} has no member {shown(str(name))}{did_you_mean(nearest(str(name), known))}"
