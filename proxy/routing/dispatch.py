"""Phase 6: call providers until one answers. The only place that makes attempts.

    place --> attempt --> send, peek --good--> the answer
      ^                         `--failure--> again? --retry, fallback--> the next place
                                                `--give_up--> the last answer, or the last error

An `Attempt` is appended before anything is sent, so a request cancelled at any point still shows what was begun. A plan
that is not managed has one attempt, and its reply is not examined: whatever the provider says is the answer. After a
failure, `retry.again` decides what follows; `health` knows which credential can be used. Nothing here runs after the
first byte was sent to the client.

Failure mode: if nothing can be called, 503 with the time when something can. Otherwise the result is the provider's own
answer, or the error of the last attempt.

Source: RFC 9110 section 9.2.2 (idempotent methods and automatic retries); Caddy, `reverse_proxy` (retry loop).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from proxy.config.routing import Routing
from proxy.errors import NoUpstreamAvailable, Overloaded, ProxyError, QuotaExceeded, UpstreamFailed
from proxy.exchange import Attempt, Candidate, Headers, RoutePlan, Sink, UpstreamReply
from proxy.openai.documents import MAX_NAME
from proxy.routing.health import Health, Permit, Place
from proxy.routing.peek import PeekedReply, can_be_heard, can_be_peeked
from proxy.routing.retry import OUTCOMES, Budget, Failure, Standing, again, cooling_s, of_error, of_status

Reply = TypeVar("Reply", bound=UpstreamReply)
SendAttempt = Callable[[Attempt], Awaitable[Reply]]
"""Send the exchange's request to `attempt.candidate`; sets `attempt.sent` once a byte may have been sent."""
Prepare = Callable[[Attempt], Awaitable[bool]]
"""Reserve and record what an attempt may cost; False: it must not be made."""

_Next = tuple[Candidate, Permit, str]
"""Candidate, permit and reason of the next attempt."""
_OF_THE_PLACE: Final = frozenset({"unsent", "busy", "gateway", "overloaded", "rate_limited", "refused", "ambiguous"})
"""Failures that another model would meet at the same place; the others concern the model or the request."""
_LEAST_WAIT_S: Final = 0.05
_HEAR_S: Final = 0.2
"""How long an error that may be replaced is read: nearly always it comes with its head."""


async def ask_once(plan: RoutePlan, attempts: list[Attempt], send: SendAttempt[Reply]) -> Reply:
    """Return the head of the provider's answer; its attempt is the last of `attempts`. Makes one attempt.

    Raises:
        UpstreamFailed: there was no answer.
        NoUpstreamAvailable: there is nothing to call, or no connection is free in time.
        Overloaded: no socket can be had for a connection.
    """
    attempt = Attempt(len(attempts), plan.candidates[0], time.monotonic())
    attempts.append(attempt)
    try:
        reply = await send(attempt)
    except (UpstreamFailed, NoUpstreamAvailable, Overloaded) as error:
        _end(attempt, error)
        raise
    _note_head(attempt, reply)
    return reply


class Dispatcher:
    """State shared by all requests: the health of the places, and the retry budget."""

    def __init__(self, settings: Routing, health: Health, budget: Budget | None = None) -> None:
        self._settings = settings
        self._health = health
        self.budget = budget or Budget(settings.retry_budget)

    def dispatch(
        self,
        plan: RoutePlan,
        attempts: list[Attempt],
        send: SendAttempt[UpstreamReply],
        prepare: Prepare,
        started: float,
    ) -> Awaitable[UpstreamReply]:
        """Return an awaitable for the head of an answer; its attempt is the last of `attempts`.

        `started`: monotonic seconds, from which the deadline counts. Raises as `ask_once`.
        """
        if not plan.is_managed:
            return ask_once(plan, attempts, send)
        return self._search(plan, attempts, send, started + self._settings.deadline_s).run(prepare)

    async def ask(
        self,
        plan: RoutePlan,
        attempts: list[Attempt],
        send: SendAttempt[UpstreamReply],
        prepare: Prepare,
        *,
        late_at: float,
        why: str,
        is_single: bool = False,
    ) -> UpstreamReply:
        """Return the head of a further answer for a request that already has one. `why`: of its first attempt.

        `late_at`: monotonic seconds. `is_single`: one attempt, whatever its result.

        Raises:
            QuotaExceeded: nothing is left for it.
            UpstreamFailed, NoUpstreamAvailable, Overloaded: as `ask_once`.
        """
        return await self._search(plan, attempts, send, late_at).run(prepare, why, is_single=is_single)

    def _search(
        self, plan: RoutePlan, attempts: list[Attempt], send: SendAttempt[UpstreamReply], late_at: float
    ) -> "_Search":
        return _Search(
            plan, attempts, send, settings=self._settings, health=self._health, budget=self.budget, late_at=late_at
        )


@dataclass(slots=True)
class _Result:
    """The result of one attempt: an answer, a failure, or both (an error response)."""

    permit: Permit
    reply: UpstreamReply | None = None
    error: ProxyError | None = None
    failure: Failure | None = None

    def discard(self) -> None:
        """Release the attempt's resources. Idempotent."""
        if self.reply is not None:
            self.reply.close()
        self.permit.release()


class _Search:
    """One request's search through its candidates. `late_at`: monotonic seconds; no attempt follows after it."""

    def __init__(
        self,
        plan: RoutePlan,
        attempts: list[Attempt],
        send: SendAttempt[UpstreamReply],
        *,
        settings: Routing,
        health: Health,
        budget: Budget,
        late_at: float,
    ) -> None:
        self._plan = plan
        self._attempts = attempts
        self._send = send
        self._settings = settings
        self._health = health
        self._budget = budget
        self._late_at = late_at
        self._made_before = len(attempts)
        self._failed: set[Place] = set()
        """Places that no further model is requested from."""
        self._tried: set[tuple[Place, str | None]] = set()
        self._too_expensive: list[Candidate] = []
        """Candidates that could not be reserved; a later one may be cheaper."""
        self._retried = False

    async def run(self, prepare: Prepare, why: str = "first", *, is_single: bool = False) -> UpstreamReply:
        """Make attempts until one succeeds or none may follow."""
        before: _Result | None = None
        following: _Next | None = (*self._first(), why)
        while following is not None:
            try:
                begun = await self._begin(following, prepare)
                if begun is None:
                    if before is None:
                        raise QuotaExceeded("Your quota is used up: no further answer was requested.")
                    return self._last_word(before)
                if before is not None:
                    before.discard()
                before = result = await self._try(*begun)
                if result.failure is None:
                    self._budget.earn()
                    return self._last_word(result) if result.reply is None else HeldReply(result.reply, result.permit)
                following = None if is_single else await self._following(begun[0].candidate, result)
            except BaseException:
                if before is not None:
                    before.discard()
                raise
        assert before is not None
        return self._last_word(before)

    def _first(self) -> tuple[Candidate, Permit]:
        now = time.monotonic()
        if (found := self._other(now)) is not None:
            return found
        for candidate in self._plan.candidates:
            if (permit := self._health.take_refused(candidate.upstream, (), now, candidate.model)) is not None:
                return candidate, permit
        wanted = {(candidate.upstream, candidate.model) for candidate in self._plan.candidates}
        raise NoUpstreamAvailable(
            "No provider of this model can take the request at the moment.",
            retry_after_s=self._health.eligible_in_s(wanted, now),
        )

    def _other(self, now: float) -> tuple[Candidate, Permit] | None:
        """Return the first available candidate that was not tried and is not too expensive, and a permit for it."""
        for candidate in self._plan.candidates:
            if candidate in self._too_expensive:
                continue
            closed = self._closed_to(candidate)
            if (permit := self._health.take(candidate.upstream, closed, now, candidate.model)) is not None:
                return candidate, permit
        return None

    def _closed_to(self, candidate: Candidate) -> set[Place]:
        return self._failed | {place for place, model in self._tried if model == candidate.model}

    async def _begin(self, following: _Next, prepare: Prepare) -> tuple[Attempt, Permit] | None:
        """Return the next attempt that could be reserved; `None` if none could.

        The first candidate's first attempt is reserved already.
        """
        candidate, permit, why = following
        while True:
            attempt = Attempt(
                index=len(self._attempts),
                candidate=candidate,
                started=time.monotonic(),
                credential=permit.place[1],
                why=why,
            )
            self._attempts.append(attempt)
            is_reserved = why == "first" and candidate is self._plan.candidates[0]
            try:
                if is_reserved or await prepare(attempt):
                    return attempt, permit
            except BaseException:
                permit.release()
                raise
            self._attempts.pop()
            permit.release()
            self._too_expensive.append(candidate)
            if (other := self._other(time.monotonic())) is None:
                return None
            (candidate, permit), why = other, "fallback" if why == "retry" else why

    async def _try(self, attempt: Attempt, permit: Permit) -> _Result:
        """Send, wait for the head, examine the start of a stream; classify the result and report it to the breaker."""
        result = _Result(permit)
        try:
            result.reply = reply = await self._send(attempt)
            _note_head(attempt, reply)
            result.failure = of_status(reply.status, reply.fields)
            if result.failure is not None and can_be_heard(reply):
                result.reply = heard = PeekedReply(reply)
                await heard.hear(_HEAR_S)
                attempt.collected = heard.told
            elif result.failure is None and can_be_peeked(reply) and self._settings.peek_s:
                result.reply = peeked = PeekedReply(reply)
                if not await peeked.begins_well(self._settings.peek_s):
                    result.failure, attempt.collected = Failure("stream_error"), peeked.told
        except (UpstreamFailed, NoUpstreamAvailable, Overloaded) as error:
            if result.reply is not None:
                result.reply.close()
            result.reply, result.error = None, error
            result.failure = of_error(error, sent=attempt.sent)
            _end(attempt, error)
        except BaseException:
            result.discard()
            raise
        self._judge(attempt, result)
        return result

    def _judge(self, attempt: Attempt, result: _Result) -> None:
        now, failure = time.monotonic(), result.failure
        if failure is None:
            if result.permit.is_probe:
                result.permit.judge("success", now)  # a half-open breaker need not wait for the end of a stream
            return
        attempt.failure = failure.kind
        attempt.ended = attempt.ended or now
        result.permit.judge(OUTCOMES[failure.kind], now, cooling_s(failure), of_model=failure.of_model)

    async def _following(self, candidate: Candidate, result: _Result) -> _Next | None:
        """Return the candidate and permit of the next attempt and its reason; `None` if none is made."""
        failure, permit, now = result.failure, result.permit, time.monotonic()
        assert failure is not None
        self._tried.add((permit.place, candidate.model))
        if failure.kind in _OF_THE_PLACE and not failure.of_model:
            self._failed.add(permit.place)
        other = self._other(now)
        standing = Standing(
            attempts=len(self._attempts) - self._made_before,
            is_late=now >= self._late_at,
            has_other=other is not None,
            retried=self._retried,
            has_budget=self._budget.has_some,
        )
        step = again(failure, standing, self._settings)
        if step == "fallback" and other is not None:
            return (*other, "fallback")
        if other is not None:
            other[1].release()
        if step != "retry":
            return None
        self._retried = True
        self._budget.spend()
        await asyncio.sleep(max(failure.wait_s or 0.0, _LEAST_WAIT_S))
        same = self._health.retake(permit.place, time.monotonic(), candidate.model)
        return None if same is None else (candidate, same, "retry")

    def _last_word(self, result: _Result) -> UpstreamReply:
        """Return the answer of the last attempt, whatever it says, or raise its error if there was none."""
        if result.reply is not None:
            attempt = self._attempts[-1]
            attempt.failure, attempt.ended = None, None  # it is the answer now, and ends with it
            return HeldReply(result.reply, result.permit, is_judged=True)
        result.permit.release()
        assert result.error is not None
        raise result.error


class HeldReply:
    """An answer on its way to the client; reports its end, good or bad, to the breaker of its place."""

    def __init__(self, reply: UpstreamReply, permit: Permit, *, is_judged: bool = False) -> None:
        self._reply = reply
        self._permit = permit
        self._is_judged = is_judged or permit.is_probe  # a probe is judged by its head
        self.status: int = reply.status
        self.reason: str = reply.reason
        self.headers: Headers = reply.headers
        self.fields = reply.fields

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived. A failure in the middle counts half."""
        try:
            return await self._reply.read(sink)
        except UpstreamFailed:
            self._note_failure()
            raise

    def _note_failure(self) -> None:
        self._is_judged = True
        self._permit.judge("half_failure", time.monotonic())

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Release the connection and the permit. Idempotent."""
        self._reply.close()
        if not self._is_judged:
            self._is_judged = True
            self._permit.judge("success", time.monotonic())
        self._permit.release()


def _note_head(attempt: Attempt, reply: UpstreamReply) -> None:
    attempt.headers_at = time.monotonic()
    attempt.status = reply.status
    if (request_id := reply.fields.get(b"x-request-id")) is not None:
        attempt.request_id = request_id[:MAX_NAME].decode("latin-1")


def _end(attempt: Attempt, error: ProxyError) -> None:
    attempt.error = error
    attempt.ended = time.monotonic()
