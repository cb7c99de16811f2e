"""The nouns of routing: where a request may go, and why. `proxy.exchange` offers the same names."""

from dataclasses import dataclass, field
from typing import Literal

from proxy.config.routing import Layer
from proxy.nouns.holds import Bound

Complexity = Literal["low", "medium", "high"]


@dataclass(slots=True)
class Candidate:
    """One way to serve the request: an upstream's name and the model to request from it."""

    upstream: str
    model: str | None
    """The name that prices and permissions use; `None` if the request names none."""
    layer: Layer | None = None
    sent_as: str | None = None
    """Model name to write into the request; `None`: the client's value stays."""
    replaces_model: bool = True
    """The client's body has a model that `sent_as` replaces."""
    forced_usage: bool = False
    """The body asks for usage that the client did not ask for."""
    is_lowered: bool = False
    """Its maximum output was lowered to the limit for one request: write `bound.output_tokens` into the body."""
    bound: Bound | None = None
    """The most it may use and cost; `None` if the plan did not need it."""
    capabilities: frozenset[str] = frozenset()
    """Capabilities of the model according to the layers; empty for a model that the client named."""


@dataclass(slots=True)
class Rejection:
    """A candidate that was considered and rejected. `why`: a word of `routing.plan`."""

    upstream: str
    model: str | None
    layer: Layer | None
    why: str


@dataclass(slots=True)
class RoutePlan:
    """Candidates in order, and the reasons."""

    candidates: tuple[Candidate, ...]
    reason: str
    is_managed: bool = False
    """We chose the model, so a failure may fall back to the next candidate. Else the provider's answer passes as is."""
    layer: Layer | None = None
    """The layer where the search began; `None` for a model that the client named."""
    complexity: Complexity | None = None
    """`None` if it was not needed."""
    rejected: tuple[Rejection, ...] = ()
    max_cost_nanos: int | None = None
    """The most that all calls of the request may cost together, if its project sets a limit."""


@dataclass(slots=True)
class Escalated:
    """An answer that was replaced by one of a higher layer. `because`: a weakness of `routing.checks`."""

    origin: Layer | None
    target: Layer | None
    because: str


@dataclass(slots=True)
class Judgement:
    """Results of the checks of an answer before its delivery."""

    check: str | None = None
    """`passed`, `unchecked`, or the weakness of the delivered answer; `None` if answers are not checked."""
    because: str | None = None
    """Why it is unchecked, or why no answer of a higher layer replaced a weak one."""
    escalated: list[Escalated] = field(default_factory=list)
    cross_check: str | None = None
    """`agreed`, `arbitrated`, `escalated`, `disputed` or `unchecked`; `None` without a second opinion."""
    cross_because: str | None = None
    """Why it is unchecked, or why a disputed answer was not replaced."""
