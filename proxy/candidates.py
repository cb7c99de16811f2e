"""The nouns of routing: where a request may go, and why. `proxy.exchange` offers the same names."""

from dataclasses import dataclass
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
