"""The routing decisions of a trace: what was chosen and why, what was rejected and why, the results of checks and their
consequences.

Rule of the file: pure; keys are the camelCase names that the API shows. The entry of an unrouted request is as short as
possible: its only candidate, and that it was the only one.
"""

from collections.abc import Iterator
from typing import Any, Final

from proxy.exchange import CacheUse
from proxy.nouns.candidates import Candidate, Judgement, RoutePlan
from proxy.trace.values import dollars

_MOST_REJECTED: Final = 32


def decision(plan: RoutePlan, cache: CacheUse | None = None) -> dict[str, Any]:
    """Return the entry of `routing_decisions`. `cache`: how the cache was used; analytics count hits by this word."""
    document: dict[str, Any] = {"reason": plan.reason, "candidates": [_candidate(one) for one in plan.candidates]}
    if plan.layer is not None:
        document["layer"] = plan.layer
    if plan.complexity is not None:
        document["complexity"] = plan.complexity
    if plan.rejected:
        document["rejected"] = [
            {"upstream": one.upstream, "model": one.model, "layer": one.layer, "why": one.why}
            for one in plan.rejected[:_MOST_REJECTED]
        ]
    if cache is not None:
        document["cache"] = cache
    return document


def repeated(plan: RoutePlan) -> tuple[str, str, str | None] | None:
    """Return reason, provider and model of a plan that has nothing else to tell, as most have."""
    first = plan.candidates[0]
    is_alone = len(plan.candidates) == 1 and first.layer is None and first.bound is None
    if is_alone and plan.layer is None and plan.complexity is None and not plan.rejected:
        return plan.reason, first.upstream, first.model
    return None


def judged(judgement: Judgement) -> Iterator[dict[str, Any]]:
    """Yield an entry for each result and consequence: the check, every escalation, the cross-check."""
    if judgement.check is not None:
        yield {"kind": "check", "result": judgement.check, "because": judgement.because}
    for one in judgement.escalated:
        yield {"kind": "escalation", "from": one.origin, "to": one.target, "because": one.because}
    if judgement.cross_check is not None:
        yield {"kind": "cross_check", "result": judgement.cross_check, "because": judgement.cross_because}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    shown: dict[str, Any] = {"upstream": candidate.upstream, "model": candidate.model}
    if candidate.layer is not None:
        shown["layer"] = candidate.layer
    if candidate.bound is not None:
        shown["maxCost"] = dollars(candidate.bound.cost_nanos)
    return shown
