"""Further answers to a request that already has one: whom to ask, what it may cost, and how the answer is read.

Before it is made, every further call is bounded, checked against the project's limit for one request, covered by the
quota and recorded. Each is an attempt of its own, so if the client disconnects or the process dies in between, what was
spent by then is charged. Memory for answers counts towards the budget of request bodies (`limits.buffered_bytes`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from proxy.config.routing import Routing
from proxy.config.schema import Config
from proxy.errors import Overloaded
from proxy.event_loop.off_loop import begin_off_loop, decoded_off_loop
from proxy.exchange import Allowance, Attempt, Dialect, Exchange, ParsedRequest, UpstreamReply
from proxy.nouns.candidates import Candidate, RoutePlan
from proxy.openai import json_steps
from proxy.phases.intake import ByteBudget
from proxy.phases.outgoing import Outgoing
from proxy.routing.collect import Bounds, Collected, collect
from proxy.routing.dispatch import Dispatcher, Prepare
from proxy.routing.plan import within


class Means(Protocol):
    """What further answers are obtained with; implemented by the pipeline."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Makes attempts."""

    @property
    def budget(self) -> ByteBudget:
        """The memory budget."""


class FurtherAnswers:
    """The further answers of one exchange.

    `allowance`: returns the limit of the last attempt's stream. `may_quote`: asked before texts of an answer are sent
    to another provider, as the policy has scanned them only as output.
    """

    def __init__(
        self,
        x: Exchange,
        means: Means,
        outgoing: Outgoing,
        allowance: Callable[[], Allowance | None],
        may_quote: Callable[[Sequence[str]], Awaitable[bool]],
    ) -> None:
        assert x.plan is not None
        self.plan: RoutePlan = x.plan
        self.attempts: list[Attempt] = x.attempts
        self.dialect: Dialect = x.inbound.operation.dialect
        self.settings: Routing = means.config.routing
        self.prepare: Prepare = outgoing.prepare
        self.may_quote = may_quote
        self._x = x
        self._with = means
        self._outgoing = outgoing
        self._allowance = allowance
        self._late_at = x.started + self.settings.deadline_s
        self._held = 0
        self._document: Any = None
        """Of a large request."""

    @property
    def is_late(self) -> bool:
        """True if no further call may be started."""
        return time.monotonic() >= self._late_at

    @property
    def is_large(self) -> bool:
        """True if the client's request is not to be encoded on the event loop."""
        request = self._x.request
        return request is not None and request.document is None and request.body is not None

    async def document(self) -> Mapping[str, Any]:
        """Return the client's request, decoded: a large one again, once, in a thread."""
        request = self._x.request
        assert request is not None
        if request.document is not None:
            return request.document
        if self._document is None:
            self._document = await decoded_off_loop(partial(json_steps.read_container, request.body or b""))
        return self._document if type(self._document) is dict else {}

    async def ask(
        self, candidates: Sequence[Candidate], why: str, prepare: Prepare, *, is_single: bool = False
    ) -> UpstreamReply | None:
        """Return the head of a further answer; `None` if it is an error.

        Bounded by the deadline, as the client is waiting although there is an answer. Raises as
        `Dispatcher.ask`, and TimeoutError.
        """
        plan, late_at = replace(self.plan, candidates=tuple(candidates)), self._late_at
        async with asyncio.timeout(max(late_at - time.monotonic(), 0)):
            reply = await self._with.dispatcher.ask(
                plan, self.attempts, self._outgoing.send, prepare, late_at=late_at, why=why, is_single=is_single
            )
        if reply.status == 200:
            return reply
        reply.close()
        self.attempts[-1].failure, self.attempts[-1].ended = "no_answer", time.monotonic()
        return None

    async def read(self, reply: UpstreamReply) -> Collected:
        """Read the answer of the last attempt, within the limits."""
        config, escalation = self._with.config, self.settings.escalation
        until = min(time.monotonic() + escalation.hold_s, self._late_at)
        bounds = Bounds(escalation.answer_bytes, config.limits.event_bytes, config.timeouts.after_end_s, until)
        return await collect(
            reply, self.attempts[-1], self.dialect, bounds, hold=self.hold, allowance=self._allowance()
        )

    def affordable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates within the project's limit for one request, their maximum output lowered if needed."""
        most = self.plan.max_cost_nanos
        if most is None:
            return list(candidates)
        left, kept = most - self._outgoing.spent(), []
        for one in candidates:
            bound = None if one.bound is None else within(one.bound, left)
            if bound is not None:
                kept.append(replace(one, bound=bound, is_lowered=one.is_lowered or bound is not one.bound))
        return kept

    def can_pay(self, candidate: Candidate, request: ParsedRequest) -> bool:
        """Tell whether a request of our own is within the project's limit for one request."""
        most = self.plan.max_cost_nanos
        return most is None or self._outgoing.spent() + self._outgoing.cost_of(candidate, request) <= most

    def hold(self, size: int) -> bool:
        """Reserve memory; False if there is not enough."""
        try:
            self._with.budget.take(size)
        except Overloaded:
            return False
        self._held += size
        return True

    def close(self) -> None:
        """Release the memory."""
        if self._document is not None:
            begin_off_loop(partial(json_steps.dissolve, self._document))
        self._with.budget.give(self._held)
        self._held = 0
