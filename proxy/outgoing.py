"""What each attempt of a request sends, and that it is paid for: between dispatch, quotas and the providers.

The first attempt is covered by what phase 5 reserves. Any further one is covered before it is made: by what earlier
ones may still be charged, and by its own bound at its own price. So all attempts together never pass what is reserved.
A maximum that was lowered, by the quota or by what a request may cost, is written into the body of the attempt.
"""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Protocol

from proxy.config.schema import Config
from proxy.exchange import Attempt, Candidate, Exchange, Inbound, UpstreamReply
from proxy.holds import Bound
from proxy.openai.output_maximum import capped
from proxy.quota.charge import Prices
from proxy.quota.estimate import bound as bound_of
from proxy.quota.reservations import Reservations
from proxy.settling import Settling
from proxy.trace.spans import Tracer

Body = bytes | AsyncIterator[bytes] | None


class Means(Protocol):
    """What the way out is paved with; the pipeline has all of it."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def provider(self) -> "Sender":
        """The providers."""

    @property
    def prices(self) -> Prices:
        """The price table."""

    @property
    def quotas(self) -> Reservations:
        """The quotas of this replica."""

    @property
    def tracer(self) -> Tracer | None:
        """Decides what providers see of a trace; `None`: what the client sent."""


class Sender(Protocol):
    """The providers, as far as an attempt needs them."""

    def send(self, attempt: Attempt, inbound: Inbound, body: Body) -> Awaitable[UpstreamReply]:
        """Send and return the head of the answer."""


class Outgoing:
    """The way out of one exchange. `body`: what phase 2 has left of the client's."""

    __slots__ = ("_settling", "_with", "_x", "body")

    def __init__(self, x: Exchange, means: Means, settling: Settling) -> None:
        self._x = x
        self._with = means
        self._settling = settling
        self.body: Body = None

    async def reserve(self) -> None:
        """Phase 5: hold what the first attempt may cost at most, or as much as is left and a useful answer needs."""
        x, settings, quotas = self._x, self._with.config.quota, self._with.quotas
        assert x.principal is not None
        assert x.plan is not None
        if not settings.enabled:
            billable = x.inbound.operation.billable
            self._settling.reservation = quotas.without_limit(x.principal) if billable else None
            return
        bound = self._bound_of(x.plan.candidates[0])
        if bound is None:
            return
        held = quotas.reserve_now(x.principal, bound)
        self._settling.reservation = held = await quotas.reserve(x.principal, bound) if held is None else held
        x.hold = held.held()
        held.extended = self._settling.extended

    def send(self, attempt: Attempt) -> Awaitable[UpstreamReply]:
        """Send what the attempt's candidate gets."""
        return self._with.provider.send(attempt, self.head(attempt), self._fitted(attempt.candidate))

    def head(self, attempt: Attempt) -> Inbound:
        """Return the request's head with the trace headers that the attempt's provider may see."""
        tracer = self._with.tracer
        return self._x.inbound if tracer is None else tracer.outbound(self._x, attempt)

    async def prepare(self, attempt: Attempt) -> bool:
        """Cover a further attempt; False if nothing is left for it."""
        held, bound = self._settling.reservation, self._settling.bound
        if held is None or bound is None:
            return True
        wanted = self._bound_of(attempt.candidate)
        if wanted is None:
            return True
        earlier = self._x.attempts[: attempt.index]
        earlier[-1].bound = bound
        charges = [self._settling.charge_of(one, bound) for one in earlier]
        if held.is_lowered and wanted.output_tokens > bound.output_tokens:
            wanted = replace(wanted, output_tokens=bound.output_tokens, is_capped=True)
        tokens = sum(charge.usage.input_tokens + charge.usage.output_tokens for charge in charges)
        return await held.cover(wanted, tokens, sum(charge.cost_nanos for charge in charges))

    def _bound_of(self, candidate: Candidate) -> Bound | None:
        """Return the most that the request may use and cost at a candidate."""
        x = self._x
        assert x.request is not None
        if candidate.bound is not None:
            return candidate.bound
        request = x.request if candidate.model == x.request.model else replace(x.request, model=candidate.model)
        settings = self._with.config.quota
        return bound_of(x.inbound.operation, request, x.inbound.content_length, self._with.prices, settings)

    def _fitted(self, candidate: Candidate) -> Body:
        """Return the body with the maximum that was left of the request's own."""
        request, held = self._x.request, self._settling.reservation
        if held is not None and held.is_lowered:
            limit = held.bound.output_tokens
        elif candidate.is_lowered and candidate.bound is not None:
            limit = candidate.bound.output_tokens
        else:
            return self.body
        assert request is not None
        return capped(request, self._x.inbound.operation.dialect, limit).body
