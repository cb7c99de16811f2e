"""The nouns of routing: where a request may go, and why. `proxy.exchange` offers the same names."""

from dataclasses import dataclass, field
from typing import Literal

from proxy.config.routing import Layer
from proxy.holds import Bound

Complexity = Literal["low", "medium", "high"]


@dataclass(slots=True)
class Candidate:
    """One place that could serve the request: an upstream's name and the model to ask it for."""

    upstream: str
    model: str | None
    """The name under which it is priced and allowed; `None` where the request names none."""
    layer: Layer | None = None
    sent_as: str | None = None
    """Name to write into the request; `None`: what the client wrote stays."""
    replaces_model: bool = True
    """The client's body has a model that `sent_as` takes the place of."""
    forced_usage: bool = False
    """The body asks for usage that the client did not ask for."""
    is_lowered: bool = False
    """Its maximum was lowered to what a request may cost: `bound.output_tokens` must be written into the body."""
    bound: Bound | None = None
    """The most it may use and cost; `None` where the plan did not need to know."""
    capabilities: frozenset[str] = frozenset()
    """What the layers say that the model can do; empty for a model that the client named."""


@dataclass(slots=True)
class Rejection:
    """A candidate that was considered and not taken. `why`: a word of `routing.plan`."""

    upstream: str
    model: str | None
    layer: Layer | None
    why: str


@dataclass(slots=True)
class RoutePlan:
    """Ordered candidates and why."""

    candidates: tuple[Candidate, ...]
    reason: str
    is_managed: bool = False
    """We chose: what fails at one candidate may be tried at the next. Else the provider's answer passes as it is."""
    layer: Layer | None = None
    """Where the search began; `None` for a model that the client named."""
    complexity: Complexity | None = None
    """`None` where nobody asked for it."""
    rejected: tuple[Rejection, ...] = ()
    max_cost_nanos: int | None = None
    """What all calls of the request may cost together, where its project says so."""


@dataclass(slots=True)
class Escalated:
    """An answer that was replaced by one of a higher layer. `because`: a weakness of `routing.checks`."""

    origin: Layer | None
    target: Layer | None
    because: str


@dataclass(slots=True)
class Judgement:
    """What was found of an answer before the client got any of it."""

    check: str | None = None
    """`passed`, `unchecked`, or the weakness of the answer that is delivered; `None` where answers are not checked."""
    because: str | None = None
    """Why it is unchecked, or why no answer of a higher layer took the place of a weak one."""
    escalated: list[Escalated] = field(default_factory=list)
    cross_check: str | None = None
    """`agreed`, `arbitrated`, `escalated`, `disputed` or `unchecked`; `None` where nobody asked for it."""
    cross_because: str | None = None
    """Why it is unchecked, or why a disputed answer was not replaced."""
