"""Second opinions on an answer: ask the next model, within `routing.cross_check.review_s`.

`routing.crosscheck` has the rules, `routing.review` the question. A review is sent to the endpoint that the client
used, with a request of its own (`Attempt.request`); it is a single attempt, without retry or fallback.

Failure mode: every failure is a `NoOpinion`; none is an error of the client's request.
"""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Final

from proxy.errors import ProxyError, QuotaExceeded
from proxy.event_loop.off_loop import off_loop
from proxy.exchange import Attempt, ParsedRequest
from proxy.nouns.candidates import Candidate
from proxy.phases.further_answers import FurtherAnswers
from proxy.routing.collect import Collected
from proxy.routing.crosscheck import NoOpinion, others
from proxy.routing.review import Question, Verdict, quoted, review_of, verdict_of

_SCHEMAS: Final = "json_schema"


class Reviewing:
    """The reviewers of one answer. Implements `crosscheck.Reviewers`."""

    def __init__(self, further: FurtherAnswers) -> None:
        self._further = further
        self._heard: set[str | None] = set()
        """Models already involved: the answer's own, and the reviewers so far."""

    async def ask(self, answer: Collected, objection: Verdict | None) -> Verdict | NoOpinion:
        """Ask the next model for its opinion. Records the result in the attempt."""
        attempts = self._further.attempts
        begun = len(attempts)
        self._heard.add(answer.attempt.candidate.model)
        opinion: Verdict | NoOpinion
        try:
            async with asyncio.timeout(self._further.settings.cross_check.review_s):
                opinion = await self._opinion(answer, objection)
        except TimeoutError:
            opinion = "late"
        except QuotaExceeded:
            opinion = "quota"
        except ProxyError:
            opinion = "failed"
        for attempt in attempts[begun:]:
            self._heard.add(attempt.candidate.model)
            attempt.check = opinion if isinstance(opinion, str) else opinion.opinion
            attempt.ended = attempt.ended or time.monotonic()
        return opinion

    async def _opinion(self, answer: Collected, objection: Verdict | None) -> Verdict | NoOpinion:
        further = self._further
        candidates = others(further.plan.candidates, answer.attempt.candidate.layer, self._heard)
        if not candidates:
            return "no_other_model"
        if further.is_late:
            return "deadline"
        question = Question(further.dialect, await further.document(), answer.said, objection)
        if not await further.may_quote(quoted(question)):
            return "policy"
        reviewers = [_as_reviewer(one) for one in candidates]
        affordable = [one for one in reviewers if further.can_pay(one, await self._request(question, one))]
        if not affordable:
            return "max_cost"
        if not further.hold((await self._request(question, affordable[0])).request_bytes):
            return "memory"
        why = "review" if objection is None else "arbitrate"
        reply = await further.ask(affordable, why, partial(self._prepare, question), is_single=True)
        if reply is None:
            return "failed"
        review = await further.read(reply)
        review.reply.close()
        return verdict_of(review.said) or "unreadable"

    async def _prepare(self, question: Question, attempt: Attempt) -> bool:
        attempt.request = await self._request(question, attempt.candidate)
        return await self._further.prepare(attempt)

    async def _request(self, question: Question, candidate: Candidate) -> ParsedRequest:
        """Return the request of a review; that of a large request is written in a thread."""
        written = partial(
            review_of,
            question,
            candidate.sent_as or candidate.model,
            knows_schemas=_SCHEMAS in candidate.capabilities,
            output_tokens=self._further.settings.cross_check.review_output_tokens,
        )
        return await off_loop(written) if self._further.is_large else written()


def _as_reviewer(candidate: Candidate) -> Candidate:
    """Return a candidate for a review: the costs computed for the client's request do not apply to it."""
    return replace(candidate, bound=None, is_lowered=False, forced_usage=False, replaces_model=True)
