"""Answer quality, between dispatch and relay: for requests that Sidegate routes, in projects that enable it.

    first answer -> read -> check --weak--> escalate: a layer above, at most `max_escalations` times
                              `--passed--> cross_check --disputed--> escalate
                                                `--else--> the one answer that the client gets

`routing` has the rules (`checks`, `escalate`, `crosscheck`), `further_answers` makes and accounts for further calls.

Failure mode: the client always gets an answer. One that cannot be checked, or replaced, is delivered and marked so.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from proxy.config.project import FeatureSettings
from proxy.config.routing import Layer
from proxy.errors import ProxyError, QuotaExceeded
from proxy.event_loop.off_loop import off_loop
from proxy.exchange import Attempt, Inbound, Operation, ParsedRequest, UpstreamReply
from proxy.nouns.candidates import Judgement, RoutePlan
from proxy.openai.expected import expected_of
from proxy.phases.further_answers import FurtherAnswers
from proxy.phases.reviewing import Reviewing
from proxy.routing.checks import Weakness, weakness_of
from proxy.routing.collect import Collected
from proxy.routing.crosscheck import cross_check
from proxy.routing.escalate import Obstacle, above, escalate, none_above
from proxy.routing.needs import read_hints
from proxy.routing.review import can_be_reviewed

_OPERATIONS: Final = frozenset({"chat.completions.create", "responses.create"})


def is_assured(operation: Operation, plan: RoutePlan, features: FeatureSettings) -> bool:
    """Tell whether the answer is checked before delivery: we chose the model, and the project enables checks."""
    if not plan.is_managed or plan.layer is None or operation.name not in _OPERATIONS:
        return False
    return features.enable_auto_escalate or features.enable_cross_check


def is_reviewed(plan: RoutePlan, asked: bool | None) -> bool:
    """Tell whether a second opinion is wanted, where the project enables them. `asked`: value of a header, if given."""
    return plan.complexity == "high" if asked is None else asked


def promised(
    inbound: Inbound, request: ParsedRequest, plan: RoutePlan, features: FeatureSettings
) -> Mapping[str, bool]:
    """Return which checks the answer would get before delivery, as the API shows them."""
    is_ours = is_assured(inbound.operation, plan, features)
    reviewed = features.enable_cross_check and is_reviewed(plan, inbound.said(read_hints).cross_check)
    return {
        "autoEscalate": is_ours and features.enable_auto_escalate,
        "crossCheck": is_ours and reviewed and can_be_reviewed(request.document or {}),
    }


class Assurance:
    """The answers of one exchange. Implements `escalate.HigherLayers`.

    `is_reviewed`: get a second opinion on an answer that passes the checks.
    """

    def __init__(self, further: FurtherAnswers, features: FeatureSettings, *, is_reviewed: bool) -> None:
        self.judgement = Judgement()
        self._further = further
        self._is_checked = features.enable_auto_escalate
        self._is_reviewed = features.enable_cross_check and is_reviewed
        self._most = further.settings.escalation.max_escalations

    async def settle_on(self, reply: UpstreamReply) -> tuple[UpstreamReply, Attempt]:
        """Return the answer that the client gets, and its attempt. `reply`: of the last attempt."""
        if reply.status != 200 or not (self._is_checked or self._is_reviewed):
            return reply, self._further.attempts[-1]
        best = await self.read_and_check(reply)
        if self._is_checked and best.weakness is not None:
            best = await escalate(best, self, self.judgement, self._most)
        self._note(best)
        if self._is_reviewed:
            best = await self._reviewed(best)
        return best.pass_on(), best.attempt

    async def ask_above(self, layer: Layer | None) -> UpstreamReply | Obstacle:
        """Request an answer from a higher layer, within what may still be spent."""
        further = self._further
        candidates = above(further.plan.candidates, layer, further.attempts)
        if not candidates:
            return none_above(further.plan.rejected, layer)
        if further.is_late:
            return "deadline"
        candidates = further.affordable(candidates)
        if not candidates:
            return "max_cost"
        try:
            return await further.ask(candidates, "escalate", further.prepare) or "no_answer"
        except TimeoutError:
            further.attempts[-1].failure, further.attempts[-1].ended = "late", time.monotonic()
            return "deadline"
        except QuotaExceeded:
            return "quota"
        except ProxyError:
            return "no_answer"

    async def read_and_check(self, reply: UpstreamReply) -> Collected:
        """Read the answer of the last attempt and check it."""
        answer = await self._further.read(reply)
        if self._is_checked:
            if answer.unchecked is None and answer.weakness is None:
                answer.weakness = await self._weakness(answer)
            answer.attempt.check = answer.unchecked or answer.weakness or "passed"
        return answer

    async def _weakness(self, answer: Collected) -> Weakness | None:
        """Check an answer; against a schema on a thread, because that may take a while."""
        settings = self._further.settings.escalation
        expected = expected_of(self._further.dialect, await self._further.document())
        if not expected.needs_schemas:
            return weakness_of(answer.said, expected, settings)
        return await off_loop(partial(weakness_of, answer.said, expected, settings))

    def _note(self, answer: Collected) -> None:
        if self._is_checked:
            judgement = self.judgement
            judgement.check = "unchecked" if answer.unchecked else answer.weakness or "passed"
            judgement.because = answer.unchecked or judgement.because

    async def _reviewed(self, answer: Collected) -> Collected:
        """Return the answer after its review, or the one of a higher layer that replaces it."""
        judgement = self.judgement
        obstacle: str | None = answer.unchecked or answer.weakness
        if obstacle is None and not can_be_reviewed(await self._further.document()):
            obstacle = "kept_elsewhere"
        if obstacle is not None:
            judgement.cross_check, judgement.cross_because = "unchecked", obstacle
            return answer
        judgement.cross_check, judgement.cross_because = await cross_check(answer, Reviewing(self._further))
        if judgement.cross_check != "disputed":
            return answer
        answer.weakness = "disputed"
        higher = await escalate(answer, self, judgement, self._most)
        if higher is answer:
            judgement.cross_because, judgement.because = judgement.because, None
        else:
            judgement.cross_check = "escalated"
            self._note(higher)
        return higher
