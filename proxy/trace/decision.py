"""The routing decision of a trace: what was chosen, why, and what was passed over for which reason.

Rule of the file: pure; keys are the camelCase names that the API shows. What is said of a request that passed as it is
stays as short as it always was: its one candidate, and that it was the only one.
"""

from typing import Any, Final

from proxy.candidates import Candidate, RoutePlan
from proxy.trace.values import NAME, bounded, dollars

_MOST_REJECTED: Final = 32


def decision(plan: RoutePlan) -> dict[str, Any]:
    """Return the entry of `routing_decisions`."""
    document: dict[str, Any] = {"reason": plan.reason, "candidates": [_candidate(one) for one in plan.candidates]}
    if plan.layer is not None:
        document["layer"] = plan.layer
    if plan.complexity is not None:
        document["complexity"] = plan.complexity
    if plan.rejected:
        document["rejected"] = [
            {"upstream": one.upstream, "model": bounded(one.model, NAME), "layer": one.layer, "why": one.why}
            for one in plan.rejected[:_MOST_REJECTED]
        ]
    return document


def _candidate(candidate: Candidate) -> dict[str, Any]:
    shown: dict[str, Any] = {"upstream": candidate.upstream, "model": bounded(candidate.model, NAME)}
    if candidate.layer is not None:
        shown["layer"] = candidate.layer
    if candidate.bound is not None:
        shown["maxCost"] = dollars(candidate.bound.cost_nanos)
    return shown
