"""Phase 4: gather the facts of a routing decision (request, project, quota, prices) and make the plan.

The decision itself is a pure function in `routing.plan`. Only the facts that it needs are gathered: a request that
names a model, with a single provider configured, costs one dictionary look-up.
"""

import random
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from proxy.auth.admission import check_model
from proxy.config.project import DEFAULT, ProjectSettings
from proxy.config.schema import Config
from proxy.event_loop.off_loop import off_loop
from proxy.exchange import Inbound, ParsedRequest, Principal, UpstreamReply
from proxy.nouns.candidates import Candidate, RoutePlan
from proxy.nouns.holds import Bound
from proxy.quota.charge import Prices
from proxy.quota.estimate import Bounds, highest_prices
from proxy.quota.reservations import Reservations
from proxy.routing.catalogue import Catalogue
from proxy.routing.health import Health
from proxy.routing.listing import ListedReply, can_be_extended
from proxy.routing.needs import Hints, read_hints, read_needs
from proxy.routing.plan import Market, RouteQuery, Rules, least_nanos, only, plan_layers, plan_model

_NANOS: Final = 1_000_000_000
_OF_TEXT: Final = frozenset({"chat", "completions", "responses"})
_MOST_RULES: Final = 10_000


class Planner:
    """Plans every request."""

    def __init__(
        self, config: Config, *, catalogue: Catalogue, health: Health, prices: Prices, quotas: Reservations
    ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._health = health
        self._prices = prices
        self._quotas = quotas
        self._highest_prices = highest_prices(catalogue.layered_models(), prices)
        self._refuses_unpriced = config.prices.unknown_model == "deny"
        self._rules: dict[int, tuple[ProjectSettings, Rules]] = {}

    def plan(
        self,
        inbound: Inbound,
        request: ParsedRequest,
        principal: Principal,
        project: ProjectSettings = DEFAULT,
        bounds: Bounds | None = None,
    ) -> RoutePlan:
        """Return where a request may go. `bounds`: of the request, if its body was read for them already.

        Raises:
            InvalidRequest, PermissionDenied: no candidate is left; the error says why.
        """
        catalogue, model = self._catalogue, request.model
        is_text = request.body is not None and inbound.operation.dialect in _OF_TEXT and inbound.operation.billable
        hints = inbound.said(read_hints)
        is_virtual, named = catalogue.virtual(model) if is_text else (False, None)
        if is_text and hints.layer is not None:
            check_model(principal, hints.layer, billable=True)
        if is_virtual or (is_text and hints.layer is not None):
            asked = self._query(request, principal, hints)
            plan = plan_layers(asked, named, self._market(inbound, request, project, bounds))
        elif model is None or (catalogue.is_single and self._is_free_of_rules(inbound, project)):
            plan = only(catalogue.default, model)
        else:
            plan = plan_model(model, self._market(inbound, request, project, bounds))
        return self._finished(plan, inbound, request)

    async def plan_apart(
        self,
        inbound: Inbound,
        request: ParsedRequest,
        principal: Principal,
        project: ProjectSettings,
        turn: AbstractAsyncContextManager[None],
    ) -> RoutePlan:
        """Do the same as `plan` for a large body, whose decoded form was dropped.

        Where costs of models are compared it is read again, in a thread; `turn` is held while it is decoded.
        """
        is_layered = self._catalogue.virtual(request.model)[0] or inbound.said(read_hints).layer is not None
        if not is_layered and project.routing.max_cost_per_request is None:
            return self.plan(inbound, request, principal, project)
        bounds = self._bounds(inbound, request)
        async with turn:
            try:
                await off_loop(bounds.read)
                return self.plan(inbound, request, principal, project, bounds)
            finally:
                await off_loop(bounds.let_go)

    def explain(
        self, inbound: Inbound, request: ParsedRequest, principal: Principal, plan: RoutePlan
    ) -> dict[str, Any]:
        """Return the plan as the API shows it, with what the request may use and cost at its first candidate."""
        first = plan.candidates[0]
        bounds = self._bounds(inbound, request)
        bound = first.bound or bounds.at(first.model or "")
        left = self._quotas.left_nanos(principal)
        estimate = None
        if bound is not None:
            estimate = {
                "inputTokens": bound.input_tokens,
                "outputTokens": bound.modest_output_tokens,
                "maxOutputTokens": bound.output_tokens,
                "cost": least_nanos(bound) / _NANOS,
                "maxCost": bound.cost_nanos / _NANOS,
            }
        return {
            "layer": first.layer,
            "model": first.model,
            "upstream": first.upstream,
            "reason": plan.reason,
            "complexity": plan.complexity,
            "candidates": [_shown(one, one.bound or bounds.at(one.model or "")) for one in plan.candidates],
            "rejected": [
                {"upstream": one.upstream, "model": one.model, "layer": one.layer, "why": one.why}
                for one in plan.rejected
            ],
            "estimate": estimate,
            "quota": {
                "leftCost": None if left is None else left / _NANOS,
                "allows": bound is None or left is None or least_nanos(bound) <= left,
            },
        }

    def models(self, project: ProjectSettings) -> list[tuple[str, str]]:
        """Return (name, provider) of every model that a project may request, `auto` and the layers first."""
        rules = self._rules_of(project, billable=True)
        named = [pair for pair in self._catalogue.named_models(rules.max_layer) if rules.allows(pair[0])]
        named = [pair for pair in named if rules.is_priced(pair[0])]
        return [*((name, "sidegate") for name in self._catalogue.virtual_names(rules.max_layer)), *named]

    def listing(self, inbound: Inbound, reply: UpstreamReply, project: ProjectSettings) -> UpstreamReply:
        """Return the answer to a list of models with our own names added; any other answer unchanged.

        With a single provider that serves every model and the default layers, the provider's own list is returned,
        unless the project is limited to some of its models.
        """
        if inbound.operation.name != "models.list" or not can_be_extended(reply):
            return reply
        is_plain = self._catalogue.is_single and self._config.routing.layers_file is None
        if is_plain and self._is_free_of_rules(inbound, project):
            return reply
        rules = self._rules_of(project, billable=True)
        return ListedReply(reply, self.models(project), rules.allows)

    def _query(self, request: ParsedRequest, principal: Principal, hints: Hints) -> RouteQuery:
        needs = read_needs(request, self._config.routing.complexity)
        return RouteQuery(
            model=request.model,
            hints=hints,
            capabilities=needs.capabilities,
            tokens=needs.tokens,
            complexity=needs.complexity,
            left_nanos=self._quotas.left_nanos(principal),
            draw=random.random(),
        )

    def _market(
        self, inbound: Inbound, request: ParsedRequest, project: ProjectSettings, bounds: Bounds | None
    ) -> Market:
        rules = self._rules_of(project, billable=inbound.operation.billable)
        bounds = bounds or self._bounds(inbound, request)
        return Market(
            self._catalogue, rules, bounds.at, self._config.routing, lambda: bounds.modest_nanos(self._highest_prices)
        )

    def _bounds(self, inbound: Inbound, request: ParsedRequest) -> Bounds:
        return Bounds(inbound.operation, request, inbound.content_length, self._prices, self._config.quota)

    def _is_free_of_rules(self, inbound: Inbound, project: ProjectSettings) -> bool:
        own = project.routing
        has_rules = own.max_layer is not None or own.max_cost_per_request is not None or own.allowed_models is not None
        return not has_rules and not (self._refuses_unpriced and inbound.operation.billable)

    def _rules_of(self, project: ProjectSettings, *, billable: bool) -> Rules:
        known = self._rules.get(id(project))
        if known is None or known[0] is not project:
            if len(self._rules) >= _MOST_RULES:
                self._rules.clear()
            known = self._rules[id(project)] = (project, self._compiled(project))
        rules = known[1]
        return rules if billable or not self._refuses_unpriced else replace(rules, is_priced=_always)

    def _compiled(self, project: ProjectSettings) -> Rules:
        own = project.routing
        cost = own.max_cost_per_request
        return Rules(
            default_layer=own.default_layer or self._config.routing.default_layer,
            max_layer=own.max_layer or "L3",
            max_cost_nanos=None if cost is None else int(cost * Decimal(_NANOS)),
            allows=_always if own.allowed_models is None else _allows(own.allowed_models),
            is_priced=self._prices.knows if self._refuses_unpriced else _always,
        )

    def _finished(self, plan: RoutePlan, inbound: Inbound, request: ParsedRequest) -> RoutePlan:
        """Apply the limits of the transport: only a buffered body can be sent again or changed."""
        is_held = request.body is not None or not inbound.has_body
        if not is_held or inbound.operation.body == "websocket":
            unchanged = tuple(one for one in plan.candidates if one.sent_as is None) or plan.candidates
            return replace(plan, candidates=unchanged[:1], is_managed=False)
        for candidate in plan.candidates:
            candidate.forced_usage = request.strip_usage
        if not plan.is_managed and self._health.credentials(plan.candidates[0].upstream) > 1:
            plan.is_managed = True
        return plan


def _allows(names: tuple[str, ...]) -> Callable[[str], bool]:
    pattern = re.compile("|".join(".*".join(map(re.escape, name.split("*"))) for name in names) or r"(?!)", re.DOTALL)
    return lambda model: pattern.fullmatch(model) is not None


def _always(_model: Any) -> bool:
    return True


def _shown(candidate: Candidate, bound: Bound | None) -> Mapping[str, Any]:
    cost = None if bound is None else bound.cost_nanos / _NANOS
    return {"upstream": candidate.upstream, "model": candidate.model, "layer": candidate.layer, "maxCost": cost}
