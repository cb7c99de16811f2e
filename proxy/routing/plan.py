"""Phase 4: where a request may go.

One provider is configured, so the plan has one candidate: that provider, with the model that the client named. The
plan is a value of its own because the trace records it and dispatch works through it without knowing why.
"""

from proxy.exchange import Candidate, ParsedRequest, RoutePlan


def plan_route(request: ParsedRequest, upstream: str) -> RoutePlan:
    """Return the candidates for `request` in order of preference."""
    return RoutePlan(candidates=(Candidate(upstream=upstream, model=request.model),), reason="only_upstream")
