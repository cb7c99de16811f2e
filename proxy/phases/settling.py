"""Phases 8 and 9 of one exchange, settle and record, and the intent that precedes them.

    write_intent   before a provider is called, and again whenever more is reserved
    seal           once, in every case: settle and record. Never waits and never raises
    show           once, when the answer is written: metrics, spans, the log line. Never raises

Only this file, `pipeline` and `outgoing` assign to the Exchange.

Failure mode: a record that cannot be built is replaced by one built from the intent; a metric or log line that fails is
left out. Neither affects the client's answer.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from proxy.auth.identify import with_body_hint
from proxy.config.schema import Config
from proxy.errors import forget_origins
from proxy.exchange import Attempt, Charge, Exchange, Meter, ParsedRequest, Usage
from proxy.journal.segments import Journal
from proxy.logs import log_request
from proxy.metrics import Metrics
from proxy.nouns.holds import Bound, Hold
from proxy.openai.estimate import estimate_usage
from proxy.openai.request import message_conversation
from proxy.phases.intake import Intake
from proxy.phases.outcome import outcome_of
from proxy.quota.charge import charge
from proxy.quota.reservation import Reservation
from proxy.trace import record
from proxy.trace.calls import total_of
from proxy.trace.chains import Chains
from proxy.trace.spans import Tracer
from proxy.upstream.pricing import PriceTable
from proxy.upstream.upstreams import Upstreams

_log = logging.getLogger("sidegate.pipeline")


class Books(Protocol):
    """What exchanges are settled and recorded with; implemented by the pipeline."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def provider(self) -> Upstreams:
        """The providers, whose keys must not appear in a record."""

    @property
    def prices(self) -> PriceTable:
        """The price table."""

    @property
    def journal(self) -> Journal:
        """Where records are appended."""

    @property
    def metrics(self) -> Metrics:
        """Counts finished exchanges."""

    @property
    def chains(self) -> Chains:
        """The conversations of the latest responses."""

    @property
    def tracer(self) -> Tracer | None:
        """Creates spans; `None` if OpenTelemetry is off."""

    @property
    def recorded(self) -> Callable[[], None]:
        """Wakes the journal's writer."""


class Settling:
    """The accounts of one exchange."""

    __slots__ = (
        "_content", "_head", "_intake", "_intent", "_key", "_sealed", "_tracing", "_with", "_x", "has_quota",
        "reservation",
    )  # fmt: skip

    def __init__(self, x: Exchange, books: Books, intake: Intake | None) -> None:
        self.reservation: Reservation | None = None
        """Set by phase 5; `None` if nothing is billed."""
        self._x = x
        self._with = books
        self._intake = intake
        self._head: bytes | None = None
        self._intent: bytes | None = None
        self._sealed = False
        self._key = bytes.fromhex(x.trace_id.replace("-", ""))
        config = books.config
        self.has_quota = config.quota.enabled
        """Whether reservations limit anything."""
        self._tracing = config.tracing.enabled
        self._content = config.tracing.content

    @property
    def bound(self) -> Bound | None:
        """The current reservation of the last attempt; `None` without one, so that uncertain usage is estimated."""
        held = self.reservation
        return None if held is None or not self.has_quota else held.bound

    @property
    def total(self) -> Bound | None:
        """The current reservation of all attempts together."""
        held = self.reservation
        return None if held is None or not self.has_quota else held.total

    def extended(self) -> None:
        """Record what a running answer may cost now, before it continues."""
        if self.reservation is not None:
            self._x.hold = self.reservation.held()
        self.write_intent()

    def write_intent(self) -> None:
        """Record what is about to be sent. Raises JournalUnavailable."""
        x = self._x
        if x.inbound.operation.dialect == "responses":
            self._join_chain()
        secrets = self._with.provider.secrets
        self._head = record.begin(x, tracing=self._tracing, secrets=secrets)
        self._intent = record.intent(x, self._head, self.total, self._spent(), secrets=secrets)
        self._with.journal.append_intent(self._key, self._intent)

    def _spent(self) -> Charge | None:
        """Return what the attempts before the last one cost; `None` if a reservation covers them."""
        if len(self._x.attempts) < 2 or self.total is not None:
            return None
        return total_of([self.charge_of(one, None) for one in self._x.attempts[:-1]])

    def hear(self, text: str) -> None:
        """Take the conversation of a session from the first of the client's messages that names one."""
        x = self._x
        if (request := x.request) is None or request.conversation is not None or self._sealed:
            return
        conversation, continues = message_conversation(text)
        if conversation is not None:
            x.request, self._head = replace(request, conversation=conversation, continues=continues), None
            self._join_chain()

    def end_session(self, attempt: Attempt) -> None:
        """Settle a websocket session that was closed cleanly."""
        attempt.meter.terminated = True
        self.seal()

    def seal(self) -> None:
        """Phases 8 and 9, once. There is no await, so nothing can come in between. Never raises."""
        if self._sealed:
            return
        self._sealed = True
        self._x.marks["relay"] = time.monotonic()
        try:
            self._settle()
            head = self._head if self._x.judgement is None else None  # it tells a decision that was judged since
            final = record.final(self._x, head, tracing=self._tracing, secrets=self._with.provider.secrets)
        except Exception:
            _log.exception("a trace record could not be built", extra={"trace": self._x.trace_id})
            final = self._stopgap()
        journal = self._with.journal
        journal.append_final(self._key, final)
        if (content := self._captured()) is not None:
            journal.append_content(self._key, content)
        self._with.recorded()

    def show(self) -> None:
        """Report the sealed exchange, once its answer is written, so that no client waits for it. Never raises."""
        x = self._x
        try:
            self._with.metrics.observe(x)
            if self._with.tracer is not None:
                self._with.tracer.observe(x)
            log_request(x, self._with.config.logging.requests)
        except Exception:
            _log.exception("the metrics of a request could not be recorded", extra={"trace": x.trace_id})

    def untie(self) -> None:
        """Break the reference cycles of a request, at its very end.

        Its reservation reports extensions here, and the frames of an error refer to what keeps the error. Collecting
        cycles costs 8 % (`make bench`), and a body would wait for it.
        """
        self.reservation = None
        x = self._x
        if x.error is not None:
            forget_origins(x.error)
        for attempt in x.attempts:
            if attempt.error is not None:
                forget_origins(attempt.error)

    def _settle(self) -> None:
        x, now = self._x, self._x.marks["relay"]
        if x.request is not None and self._intake is not None and self._intake.streamed_bytes:
            self._learn(self._intake.learned(x.request))
        for attempt in x.attempts:
            if attempt.ended is None:
                attempt.ended = now
        if (answering := x.answering) is not None:
            if x.error is None and x.delivery.status is None:
                x.delivery.status = answering.status
            if x.inbound.operation.is_chained:
                self._lengthen_chain(answering.used)
        x.ended = now
        x.outcome = outcome_of(x)
        held, bound = self.reservation, self.bound
        x.charges = tuple([self.charge_of(attempt, bound) for attempt in x.attempts])
        if held is not None:
            total = total_of(x.charges)
            x.hold = held.settle(total.usage.input_tokens + total.usage.output_tokens, total.cost_nanos)

    def charge_of(self, attempt: Attempt, bound: Bound | None) -> Charge:
        """Return what an attempt cost so far. `bound`: the current reservation, for the last attempt."""
        x = self._x
        own = attempt.bound if attempt.bound is not None and bound is not None else bound
        return charge(attempt, x.inbound.operation, attempt.request or x.request, self._with.prices, own)

    def _join_chain(self) -> None:
        """Replace the id of the response that a request continues by the conversation of that."""
        x = self._x
        if (request := x.request) is not None and (continued := request.continues) is not None:
            conversation = self._with.chains.conversation(_project(x), continued)
            x.request = replace(request, conversation=conversation)

    def _lengthen_chain(self, answer: Meter) -> None:
        """Let what continues an answer belong to its conversation; the first of a chain is named by its own id."""
        x = self._x
        conversation = x.request.conversation if x.request is not None else None
        conversation = answer.conversation if conversation is None else conversation
        latest = answer.latest_response_id or answer.response_id
        if latest is not None and conversation is not None:
            self._with.chains.note(_project(x), latest, conversation)

    def _learn(self, request: ParsedRequest) -> None:
        """Add what was learned from an upload as it passed: its model sets the price, its user may name the caller."""
        x = self._x
        x.request, self._head = request, None
        if x.principal is not None:
            x.principal = with_body_hint(x.principal, request.user_hint)
        for attempt in x.attempts:
            if attempt.candidate.model is None:
                attempt.candidate = replace(attempt.candidate, model=request.model)

    def _stopgap(self) -> bytes:
        """Return a record built from the intent alone; without an intent nothing was sent, so nothing is owed."""
        x = self._x
        x.outcome = "internal_error"
        if self._intent is None:
            bare = Exchange(x.trace_id, x.started_at_ms, x.started, x.inbound)
            secrets = self._with.provider.secrets
            intent = record.intent(bare, record.begin(bare, secrets=secrets), secrets=secrets)
            return record.interrupted(intent, self._owed, x.outcome)
        held = self.reservation
        hold = self._keep(held) if held is not None and not held.settled else x.hold
        return record.interrupted(self._intent, self._owed, x.outcome, hold, is_whole=bool(x.charges))

    def _keep(self, held: Reservation) -> Hold | None:
        """Charge a reservation in full, or nothing if no attempt was made."""
        x, bound = self._x, self.total
        if not x.attempts or bound is None:
            return held.settle(0, 0)
        usage = Usage(input_tokens=bound.input_tokens, output_tokens=bound.output_tokens)
        x.charges = (Charge(usage, "estimated", bound.cost_nanos, priced=True),)
        return held.settle(bound.tokens, bound.cost_nanos)

    def _owed(self, _model: str | None, text_bytes: int) -> Charge:
        """Return the cost of all attempts, with the last one estimated if it is not known."""
        x = self._x
        if not x.attempts:
            return Charge(Usage(), "none", 0, priced=True)
        if not x.charges:
            return Charge(estimate_usage(text_bytes, 0), "estimated", 0, priced=False)
        return total_of(x.charges)

    def _captured(self) -> bytes | None:
        """Return the record of captured bodies, if there is one. It may fail: the exchange itself is recorded."""
        try:
            return None if self._content == "off" else record.content(self._x, self._content)
        except Exception:
            _log.exception("the content of a request could not be recorded", extra={"trace": self._x.trace_id})
            return None


def _project(x: Exchange) -> str | None:
    return None if x.principal is None else x.principal.project_id
