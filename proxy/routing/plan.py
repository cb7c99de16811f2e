"""Phase 4: where a request may go. A pure decision: the same facts give the same plan.

A request for a real model goes to the providers of that model. For `auto`, `L0` .. `L3` and requests with a layer in
their headers, the first row that applies decides the layer where the search begins:

| rule                                     | begins at                  | reason               |
|------------------------------------------|----------------------------|----------------------|
| a layer is named (header, then model)    | that layer                 | `explicit_layer`     |
| the daily budget is used up              | L0, free models only       | `budget_gone`        |
| quality `critical`                       | `critical_layer` (L2)      | `quality_critical`   |
| quality `high`, complexity high          | `high_layer` (L1)          | `quality_high`       |
| quality `low`                            | L0                         | `quality_low`        |
| complexity high                          | `complex_layer` (L1)       | `complexity_high`    |
| else                                     | the default layer          | `default_layer`      |

A hint or complexity never begins below the default layer; quality `low` does. `maxLayer` limits every row, and the
reason says so. From there the search goes up to `maxLayer`, then down: an answer of a lower layer is better than none.
Each model on the way becomes a candidate, unless it is rejected for one of these reasons:

    not_allowed   above_max_layer   lacks_<capability>   context_too_small   unpriced   too_expensive   beyond_budget

If a model's full bound exceeds `maxCostPerRequest` but a useful answer does not, its maximum output is lowered to the
affordable value, which is written into the request. If the budget is too small for any model and none is free, the plan
ignores it: the reservation then fails with exact figures.

Failure mode: without a candidate, the error names the obstacle: 400 with the amount for cost, 403 for missing
permission, 404 for a model that no provider has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from proxy.config.routing import LAYERS, Layer, Routing
from proxy.errors import InvalidRequest, PermissionDenied, ProxyError
from proxy.nouns.candidates import Candidate, Complexity, Rejection, RoutePlan
from proxy.nouns.holds import Bound
from proxy.routing.catalogue import Catalogue, Offer, Tier
from proxy.routing.needs import Hints

MOST_CANDIDATES: Final = 8
"""Beyond it, only the first candidate of each layer without one: an escalation may go there."""
_MILLION: Final = 1_000_000
_NANOS: Final = Decimal(1_000_000_000)
_QUALITY_LOW: Final = "quality_low"

BoundOf = Callable[[str], Bound | None]
"""Return the most that the request may use and cost at a model; `None` if nothing is billed."""


def _unknown() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a caller's project allows. Built once per version of its settings."""

    default_layer: Layer
    max_layer: Layer
    max_cost_nanos: int | None
    allows: Callable[[str], bool]
    is_priced: Callable[[str], bool]
    """Models without a price are refused; always true unless the price policy is `deny`."""


# Created for every request, so not frozen: that triples the time to create one (bench/decision.py).
@dataclass(slots=True)
class RouteQuery:
    """What one request asks for."""

    model: str | None
    hints: Hints
    capabilities: frozenset[str]
    tokens: int
    complexity: Complexity
    left_nanos: int | None
    """The caller's remaining budget; `None` if it is unknown or unlimited."""
    draw: float
    """In [0, 1): selects which of the weighted offers comes first."""


@dataclass(slots=True)
class Market:
    """The offers, who may use them, and what they cost."""

    catalogue: Catalogue
    rules: Rules
    bound_of: BoundOf
    settings: Routing
    modest_nanos: Callable[[], int | None] = _unknown
    """Return the most that a modest answer costs at any layered model; `None` if only exact bounds can tell."""


@dataclass(slots=True)
class _Requirements:
    """Requirements for an offer. `left_nanos`: the most that it may cost; `None`: anything."""

    capabilities: frozenset[str] = frozenset()
    tokens: int = 0
    left_nanos: int | None = None


def plan_layers(query: RouteQuery, named: Layer | None, market: Market) -> RoutePlan:
    """Return the candidates for a request that leaves the model to us. `named`: the layer that its model name gives.

    Raises:
        InvalidRequest, PermissionDenied: there is no candidate.
    """
    rules = market.rules
    layer, reason = _begin(query, named, rules, market.settings)
    if _rank(layer) > _rank(rules.max_layer):
        layer, reason = rules.max_layer, f"{reason}, bounded by maxLayer"
    offers = _in_order(market.catalogue.search_order(layer, rules.max_layer), query.draw)
    needed = _Requirements(query.capabilities | query.hints.needs, query.tokens, _scarce(query.left_nanos, market))
    taken, rejected = _select(offers, needed, market, query.model)
    if not taken and any(one.why == "beyond_budget" for one in rejected):
        taken, rejected = _select(offers, replace(needed, left_nanos=None), market, query.model)
    if not taken:
        raise _nothing_fits(rejected, rules)
    first = taken[0]
    first.bound = first.bound or market.bound_of(first.model or "")
    return RoutePlan(
        tuple(taken),
        reason,
        is_managed=True,
        layer=layer,
        complexity=query.complexity,
        rejected=tuple(rejected),
        max_cost_nanos=rules.max_cost_nanos,
    )


def plan_model(model: str, market: Market) -> RoutePlan:
    """Return the providers of a model that the client named.

    Raises:
        InvalidRequest, PermissionDenied: no provider has it, or the project may not use it.
    """
    hosts = market.catalogue.hosts(model)
    taken, rejected = _select(hosts, _Requirements(), market, model)
    if not hosts:
        text = f"The model {model!r} does not exist here or you do not have access to it."
        raise InvalidRequest(text, status=404, code="model_not_found", param="model")
    if not taken:
        raise _nothing_fits(rejected, market.rules)
    reason = "only_upstream" if market.catalogue.is_single else "named_model"
    return RoutePlan(
        tuple(taken),
        reason,
        is_managed=len(taken) > 1,
        rejected=tuple(rejected),
        max_cost_nanos=market.rules.max_cost_nanos,
    )


def only(upstream: str, model: str | None) -> RoutePlan:
    """Return the plan of a request that goes to one provider unchanged."""
    return RoutePlan((Candidate(upstream, model),), "only_upstream")


def _begin(query: RouteQuery, named: Layer | None, rules: Rules, settings: Routing) -> tuple[Layer, str]:
    """Return the layer where the search begins, and why: the first row of the table that applies."""
    explicit = query.hints.layer or named
    if explicit is not None:
        return explicit, "explicit_layer"
    if query.left_nanos is not None and query.left_nanos <= 0:
        return "L0", "budget_gone"
    quality, default = query.hints.quality, rules.default_layer
    if quality == "low":
        return "L0", _QUALITY_LOW
    if quality == "critical":
        return _higher(settings.critical_layer, default), "quality_critical"
    if query.complexity == "high":
        if quality == "high":
            return _higher(settings.high_layer, default), "quality_high"
        return _higher(settings.complex_layer, default), "complexity_high"
    return default, "default_layer"


def _scarce(left_nanos: int | None, market: Market) -> int | None:
    """Return the remaining budget, or `None` if it covers a modest answer of any model and need not be checked."""
    if left_nanos is None:
        return None
    most = market.rules.max_cost_nanos
    most = market.modest_nanos() if most is None else most
    return None if most is not None and most <= left_nanos else left_nanos


def _in_order(tiers: Sequence[Tier], draw: float) -> Sequence[Offer]:
    return [offer for tier in tiers for offer in (_weighted(tier, draw) if tier.weight else tier.offers)]


def _weighted(tier: Tier, draw: float) -> Sequence[Offer]:
    """Put one of the weighted offers first, according to its share; the others keep their order."""
    offers, point = tier.offers, draw * tier.weight
    for place, offer in enumerate(offers):
        point -= offer.weight or 0
        if offer.weight is not None and point < 0:
            return (offer, *offers[:place], *offers[place + 1 :])
    return offers


def _select(
    offers: Sequence[Offer], needed: _Requirements, market: Market, asked_model: str | None
) -> tuple[list[Candidate], list[Rejection]]:
    """Return candidates and rejections. Every layer keeps a candidate, even if others have many."""
    rules, most, left = market.rules, market.rules.max_cost_nanos, needed.left_nanos
    has_price = most is not None or left is not None
    taken: list[Candidate] = []
    rejected: list[Rejection] = []
    known: set[tuple[str, str]] = set()
    layers: set[Layer | None] = set()
    for offer in offers:
        place, layer = (offer.upstream, offer.model), offer.layer
        if place in known or (len(taken) >= MOST_CANDIDATES and layer in layers):
            continue
        why, bound, is_lowered = _unfit(offer, needed, rules), None, False
        if why is None and has_price:
            why, bound, is_lowered = _afford(market.bound_of(offer.model), most, left)
        if why is not None:
            rejected.append(Rejection(*place, layer, why))
            continue
        sent_as = None if offer.own_name == asked_model else offer.own_name
        taken.append(
            Candidate(*place, layer, sent_as, asked_model is not None, False, is_lowered, bound, offer.capabilities)
        )
        known.add(place)
        layers.add(layer)
    return taken, rejected


def _unfit(offer: Offer, needed: _Requirements, rules: Rules) -> str | None:
    """Return why a request may not go to an offer, cost aside; cheapest tests first."""
    if not rules.allows(offer.model):
        return "not_allowed"
    if offer.layer is not None and offer.layer > rules.max_layer:  # layer names sort by rank
        return "above_max_layer"
    if lacking := needed.capabilities - offer.capabilities:
        return f"lacks_{min(lacking)}"
    if offer.context_tokens is not None and needed.tokens > offer.context_tokens:
        return "context_too_small"
    return None if rules.is_priced(offer.model) else "unpriced"


def _afford(whole: Bound | None, most: int | None, left: int | None) -> tuple[str | None, Bound | None, bool]:
    """Return why a request is too expensive, or else its bound and whether that is lowered. `whole`: without limits."""
    if whole is None:
        return None, None, False
    bound = whole if most is None else within(whole, most)
    if bound is None:
        return "too_expensive", None, False
    if left is not None and least_nanos(bound) > max(left, 0):
        return "beyond_budget", None, False
    return None, bound, bound is not whole


def within(bound: Bound, nanos: int) -> Bound | None:
    """Return `bound`, with its maximum lowered if needed, for at most `nanos`; `None` if nothing useful fits."""
    if bound.cost_nanos <= nanos:
        return bound
    price = bound.output_nanos_per_million
    if not bound.can_be_capped or not price or bound.input_nanos > nanos:
        return None
    output = (nanos - bound.input_nanos) * _MILLION // price
    if output < bound.modest_output_tokens:
        return None
    return Bound(
        bound.input_tokens,
        bound.input_nanos,
        output,
        price,
        bound.modest_output_tokens,
        is_capped=True,
        can_be_capped=True,
    )


def least_nanos(bound: Bound) -> int:
    """Return the most that a request costs if it settles for a modest answer."""
    return bound.input_nanos - (-bound.modest_output_tokens * bound.output_nanos_per_million // _MILLION)


def _nothing_fits(rejected: Sequence[Rejection], rules: Rules) -> ProxyError:
    """Return the error that names the obstacle; of several, the one closest to an answer."""
    reasons = {one.why for one in rejected}
    if "too_expensive" in reasons and rules.max_cost_nanos is not None:
        dollars = Decimal(rules.max_cost_nanos) / _NANOS
        text = (
            f"No model answers this request for at most {dollars:f} dollars, the maxCostPerRequest of this project. "
            "Lower its maximum output or shorten its input."
        )
        return InvalidRequest(text, code="max_cost_exceeded", param="model")
    if "unpriced" in reasons:
        name = next(one.model for one in rejected if one.why == "unpriced")
        text = f"The model {name!r} has no price, and unpriced models are refused here."
        return InvalidRequest(text, code="model_not_priced", param="model")
    lacking = sorted(why for why in reasons if why.startswith("lacks_"))
    if lacking or "context_too_small" in reasons:
        what = [why.removeprefix("lacks_") for why in lacking] or ["a context of this length"]
        text = f"No model that this project may use has what the request needs: {', '.join(what)}."
        return InvalidRequest(text, code="no_capable_model", param="model")
    if not reasons:
        text = f"No layer up to {rules.max_layer} has a model: list some in routing.layers_file, or name a model."
        return InvalidRequest(text, code="no_model_configured", param="model")
    if reasons == {"above_max_layer"}:
        text = f"This project may use layers up to {rules.max_layer} only, and the model stands above it."
        return PermissionDenied(text, code="layer_not_allowed", param="model")
    names = {one.model for one in rejected if one.why == "not_allowed"}
    refused = f"the model {names.pop()!r}" if len(names) == 1 else "a model of these layers"
    text = f"This project may not use {refused}: routing.allowedModels of its settings does not list it."
    return PermissionDenied(text, code="model_not_allowed", param="model")


def _rank(layer: Layer) -> int:
    return LAYERS.index(layer)


def _higher(one: Layer, other: Layer) -> Layer:
    return one if _rank(one) >= _rank(other) else other
