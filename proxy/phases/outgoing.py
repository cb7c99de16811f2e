"""What each attempt of a request sends, and its reservation: between dispatch, quotas and the providers.

The reservation of phase 5 covers the first attempt if it goes to the first candidate. Every other attempt is covered
before it is made, at the price of its own candidate and on top of what earlier attempts may still be charged. So all
attempts together never exceed what is reserved. If the quota or the project's limit lowers the maximum output, the
attempt's body carries the lower value.

An attempt may have a request of its own, such as a review's; then that one is bounded, reserved and sent. An attempt
that asks for a different answer omits the client's idempotency key: a provider would repeat the first one, or refuse.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from proxy.config.schema import Config
from proxy.event_loop.off_loop import LARGE_BODY_BYTES, off_loop
from proxy.exchange import Attempt, Candidate, Exchange, Inbound, ParsedRequest, UpstreamReply
from proxy.nouns.holds import Bound
from proxy.openai.output_maximum import capped
from proxy.phases.intake import ByteBudget
from proxy.phases.settling import Settling
from proxy.quota.charge import Prices
from proxy.quota.estimate import bound as bound_of
from proxy.quota.reservations import Reservations
from proxy.trace.spans import Tracer

Body = bytes | AsyncIterator[bytes] | None
_ANEW: Final = frozenset({"escalate", "review", "arbitrate"})
_OF_ONE_ANSWER: Final = frozenset({b"idempotency-key", b"x-idempotency-key"})


class Means(Protocol):
    """What attempts are sent with; implemented by the pipeline."""

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
    def budget(self) -> ByteBudget:
        """What bounds the bodies in memory."""

    @property
    def tracer(self) -> Tracer | None:
        """Decides which trace headers providers get; `None`: those that the client sent."""


class Sender(Protocol):
    """The part of the providers that an attempt needs."""

    def send(self, attempt: Attempt, inbound: Inbound, body: Body) -> Awaitable[UpstreamReply]:
        """Send the request and return the reply once its head has arrived."""


class Outgoing:
    """The outgoing side of one exchange. `body`: the client's body after phase 2."""

    __slots__ = ("_large", "_lowered_to", "_settling", "_with", "_x", "body")

    def __init__(self, x: Exchange, means: Means, settling: Settling) -> None:
        self._x = x
        self._with = means
        self._settling = settling
        self.body: Body = None
        self._lowered_to: int | None = None
        """The maximum of output tokens that the quota left to the first attempt; no later one gets more."""
        self._large: tuple[tuple[str | None, bytes], Bound | None] | None = None
        """Model and body that were read last in a thread, and their bound: attempts often ask for the same."""

    async def reserve(self) -> None:
        """Phase 5: reserve the most that the first attempt may cost, or what is left if that allows a useful answer."""
        x, quotas = self._x, self._with.quotas
        assert x.principal is not None
        assert x.plan is not None
        if not self._settling.has_quota:
            tells_usage = x.inbound.operation.dialect != "none"
            self._settling.reservation = quotas.without_limit(x.principal) if tells_usage else None
            return
        bound = await self._bound_apart(x.plan.candidates[0], x.request)
        if bound is None:
            return
        held = quotas.reserve_now(x.principal, bound)
        self._settling.reservation = held = await quotas.reserve(x.principal, bound) if held is None else held
        self._lowered_to = held.bound.output_tokens if held.is_lowered else None
        x.hold = held.held()
        held.extended = self._settling.extended

    def send(self, attempt: Attempt) -> Awaitable[UpstreamReply]:
        """Send the attempt's request to its candidate."""
        inbound = self.head(attempt)
        if attempt.why in _ANEW:
            kept = [header for header in inbound.headers if header[0].lower() not in _OF_ONE_ANSWER]
            inbound = replace(inbound, headers=kept)
        request, limit = attempt.request or self._x.request, self._limit(attempt)
        if limit is None:
            body = self.body if attempt.request is None else attempt.request.body
            return self._with.provider.send(attempt, inbound, body)
        assert request is not None
        fitted = partial(capped, request, inbound.operation.dialect, limit, model=attempt.candidate.sent_as)
        body = request.body or b""
        if len(body) <= LARGE_BODY_BYTES:
            return self._with.provider.send(attempt, inbound, fitted().body)
        return self._send_large(attempt, inbound, body, fitted)

    async def _send_large(
        self, attempt: Attempt, inbound: Inbound, body: bytes, fitted: Callable[[], ParsedRequest]
    ) -> UpstreamReply:
        """Fit a large body in a thread, once it is its turn, and send it."""
        async with self._with.budget.decoding_of(body):
            request = await off_loop(fitted)
        return await self._with.provider.send(attempt, inbound, request.body)

    def head(self, attempt: Attempt) -> Inbound:
        """Return the request head with the trace headers that the attempt's provider may see."""
        tracer = self._with.tracer
        return self._x.inbound if tracer is None else tracer.outbound(self._x, attempt)

    def cost_of(self, candidate: Candidate, request: ParsedRequest) -> int:
        """Return the most that a request may cost at a candidate, in nano-dollars."""
        bound = self._bound_of(candidate, request)
        return 0 if bound is None else bound.cost_nanos

    def spent(self) -> int:
        """Return what the attempts so far are charged or may still be charged, in nano-dollars."""
        settling = self._settling
        return sum(settling.charge_of(one, settling.bound).cost_nanos for one in self._x.attempts)

    async def prepare(self, attempt: Attempt) -> bool:
        """Reserve for an attempt; False if the quota, or the project's limit for one request, does not allow it."""
        settling, most = self._settling, self._x.plan.max_cost_nanos if self._x.plan is not None else None
        held, bound = settling.reservation, settling.bound
        wanted = await self._bound_apart(attempt.candidate, attempt.request or self._x.request)
        if held is None or wanted is None:
            return True
        earlier = self._x.attempts[: attempt.index]
        if earlier:
            earlier[-1].bound = bound
        charges = [settling.charge_of(one, bound) for one in earlier]
        if self._lowered_to is not None and wanted.output_tokens > self._lowered_to:
            wanted = replace(wanted, output_tokens=self._lowered_to, is_capped=True)
        nanos = sum(charge.cost_nanos for charge in charges)
        if most is not None and nanos + wanted.cost_nanos > most:
            return False
        if bound is None:  # no quota, so nothing to reserve; earlier costs are recorded before more are incurred
            settling.write_intent()
            return True
        tokens = sum(charge.usage.input_tokens + charge.usage.output_tokens for charge in charges)
        return await held.cover(wanted, tokens, nanos)

    async def _bound_apart(self, candidate: Candidate, request: ParsedRequest | None) -> Bound | None:
        """Return the same as `_bound_of`: that of a large body, which is read again, from a thread and once a model."""
        if candidate.bound is not None or request is None or request.document is not None or request.body is None:
            return self._bound_of(candidate, request)
        asked = (candidate.model, request.body)
        if self._large is None or self._large[0] != asked:
            async with self._with.budget.decoding_of(request.body):
                self._large = asked, await off_loop(partial(self._bound_of, candidate, request))
        return self._large[1]

    def _bound_of(self, candidate: Candidate, request: ParsedRequest | None) -> Bound | None:
        """Return the most that a request may use and cost at a candidate."""
        x = self._x
        assert request is not None
        if candidate.bound is not None:
            return candidate.bound
        request = request if candidate.model == request.model else replace(request, model=candidate.model)
        settings = self._with.config.quota
        return bound_of(x.inbound.operation, request, x.inbound.content_length, self._with.prices, settings)

    def _limit(self, attempt: Attempt) -> int | None:
        """Return the maximum output that was granted, if the body has to name it in place of its own."""
        candidate, held = attempt.candidate, self._settling.reservation
        if held is not None and held.is_lowered:
            return held.bound.output_tokens
        if candidate.is_lowered and candidate.bound is not None:
            return candidate.bound.output_tokens
        return None
