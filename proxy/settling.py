"""Phases 8 and 9 of one exchange, settle and record: what was reserved, what was put on record, and the end of it.

    write_intent   before a provider is asked, and again whenever more is reserved
    seal           once, whatever happened: settle, record, show. Never waits and never raises

Only this file and `pipeline` assign to the Exchange.

Failure mode: a record that cannot be made is replaced by one made of the intent; a figure or a log line that cannot be
made is left out. Neither takes the client's answer away.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from proxy.auth.identify import with_body_hint
from proxy.config.schema import Config
from proxy.credentials import cover, cover_shapes
from proxy.exchange import Attempt, Charge, Exchange, ParsedRequest, Usage
from proxy.holds import Bound, Hold
from proxy.intake import Intake
from proxy.journal.segments import Journal
from proxy.logs import log_request
from proxy.metrics import Metrics
from proxy.openai.estimate import estimate_usage
from proxy.outcome import outcome_of
from proxy.quota.charge import charge
from proxy.quota.reservation import Reservation
from proxy.trace import record
from proxy.trace.spans import Tracer
from proxy.upstream.pricing import PriceTable
from proxy.upstream.upstreams import Upstreams

_log = logging.getLogger("sidegate.pipeline")


class Books(Protocol):
    """What exchanges are settled and recorded with; the pipeline is one."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def provider(self) -> Upstreams:
        """Whose keys must not reach a record."""

    @property
    def prices(self) -> PriceTable:
        """What usage costs."""

    @property
    def journal(self) -> Journal:
        """Where records go."""

    @property
    def metrics(self) -> Metrics:
        """What counts finished exchanges."""

    @property
    def tracer(self) -> Tracer | None:
        """What makes spans; `None` where nobody wants any."""

    @property
    def recorded(self) -> Callable[[], None]:
        """Tells the journal's writer that there is something to write."""


class Settling:
    """The books of one exchange."""

    __slots__ = ("_head", "_intake", "_intent", "_key", "_sealed", "_with", "_x", "reservation")

    def __init__(self, x: Exchange, books: Books, intake: Intake | None) -> None:
        self.reservation: Reservation | None = None
        """Set by phase 5; `None` where nothing is billed."""
        self._x = x
        self._with = books
        self._intake = intake
        self._head: record.Document | None = None
        self._intent: bytes | None = None
        self._sealed = False
        self._key = bytes.fromhex(x.trace_id.replace("-", ""))

    @property
    def bound(self) -> Bound | None:
        """What is reserved by now; `None` where nothing is, so that uncertain usage is estimated."""
        held = self.reservation
        return None if held is None or not self._with.config.quota.enabled else held.bound

    @property
    def total(self) -> Bound | None:
        """The same for all attempts together."""
        held = self.reservation
        return None if held is None or not self._with.config.quota.enabled else held.total

    def extended(self) -> None:
        """Put on record what a running answer may cost now, before it goes on."""
        if self.reservation is not None:
            self._x.hold = self.reservation.held()
        self.write_intent()

    def write_intent(self) -> None:
        """Put on record what is about to be sent. Raises JournalUnavailable."""
        x = self._x
        self._head = record.begin(x, tracing=self._with.config.tracing.enabled)
        self._intent = self._without_credentials(record.intent(x, self._head, self.total, self._spent()))
        self._with.journal.append_intent(self._key, self._intent)

    def _spent(self) -> Charge | None:
        """Return what the attempts before the last one cost, where no reservation holds it."""
        if len(self._x.attempts) < 2 or self.total is not None:
            return None
        return _together([self.charge_of(one, None) for one in self._x.attempts[:-1]])

    def end_session(self, attempt: Attempt) -> None:
        """Settle a websocket session that was closed in good order."""
        attempt.meter.terminated = True
        self.seal()

    def seal(self) -> None:
        """Phases 8 and 9, once: settle, then record. No await, so that nothing can come in between. Never raises."""
        if self._sealed:
            return
        self._sealed = True
        self._x.marks["relay"] = time.monotonic()
        try:
            self._settle()
            final = self._without_credentials(
                record.final(self._x, self._head, tracing=self._with.config.tracing.enabled)
            )
        except Exception:
            _log.exception("a trace record could not be built", extra={"trace": self._x.trace_id})
            final = self._stopgap()
        self._with.journal.append_final(self._key, final)
        self._with.recorded()
        try:
            self._show()
        except Exception:
            _log.exception("the metrics of a request could not be recorded", extra={"trace": self._x.trace_id})

    def _settle(self) -> None:
        x, now = self._x, self._x.marks["relay"]
        if x.request is not None and self._intake is not None and self._intake.streamed_bytes:
            self._learn(self._intake.learned(x.request))
        for attempt in x.attempts:
            if attempt.ended is None:
                attempt.ended = now
        if x.error is None and x.delivery.status is None and x.answering is not None:
            x.delivery.status = x.answering.status
        x.ended = now
        x.outcome = outcome_of(x)
        held, bound = self.reservation, self.bound
        x.charges = tuple([self.charge_of(attempt, bound) for attempt in x.attempts])
        if held is not None:
            tokens = nanos = 0
            for one in x.charges:
                tokens += one.usage.input_tokens + one.usage.output_tokens
                nanos += one.cost_nanos
            x.hold = held.settle(tokens, nanos)

    def charge_of(self, attempt: Attempt, bound: Bound | None) -> Charge:
        """Return what an attempt cost so far. `bound`: what is reserved by now, for the last attempt."""
        x = self._x
        own = attempt.bound if attempt.bound is not None and bound is not None else bound
        return charge(attempt, x.inbound.operation, attempt.request or x.request, self._with.prices, own)

    def _learn(self, request: ParsedRequest) -> None:
        """Add what an upload said while it passed: its model has the price, its user is the caller."""
        x = self._x
        x.request, self._head = request, None
        if x.principal is not None:
            x.principal = with_body_hint(x.principal, request.user_hint)
        for attempt in x.attempts:
            if attempt.candidate.model is None:
                attempt.candidate = replace(attempt.candidate, model=request.model)

    def _stopgap(self) -> bytes:
        """Return a record made of the intent alone; without an intent nothing was sent, so nothing is owed."""
        x = self._x
        x.outcome = "internal_error"
        if self._intent is None:
            bare = Exchange(x.trace_id, x.started_at_ms, x.started, x.inbound)
            intent = self._without_credentials(record.intent(bare, record.begin(bare)))
            return record.interrupted(intent, self._owed, x.outcome)
        held = self.reservation
        hold = self._keep(held) if held is not None and not held.settled else x.hold
        return record.interrupted(self._intent, self._owed, x.outcome, hold, is_whole=bool(x.charges))

    def _keep(self, held: Reservation) -> Hold | None:
        """Charge a reservation as a whole, or nothing if nothing was begun."""
        x, bound = self._x, self.total
        if not x.attempts or bound is None:
            return held.settle(0, 0)
        usage = Usage(input_tokens=bound.input_tokens, output_tokens=bound.output_tokens)
        x.charges = (Charge(usage, "estimated", bound.cost_nanos, priced=True),)
        return held.settle(bound.tokens, bound.cost_nanos)

    def _without_credentials(self, body: bytes) -> bytes:
        """Return a record without keys that stood where a name belongs: what was sent as model may be anything."""
        return cover_shapes(cover(body, self._with.provider.secrets))

    def _owed(self, _model: str | None, text_bytes: int) -> Charge:
        """Return what all attempts cost together; an estimate of the last one where that is not known."""
        x = self._x
        if not x.attempts:
            return Charge(Usage(), "none", 0, priced=True)
        if not x.charges:
            return Charge(estimate_usage(text_bytes, 0), "estimated", 0, priced=False)
        return x.charges[0] if len(x.charges) == 1 else _together(x.charges)

    def _show(self) -> None:
        """What may fail without harm once the record is safe: captured content, metrics, the log line."""
        x, config = self._x, self._with.config
        if config.tracing.content != "off" and (content := record.content(x, config.tracing.content)) is not None:
            self._with.journal.append_content(self._key, content)
            self._with.recorded()
        self._with.metrics.observe(x)
        if self._with.tracer is not None:
            self._with.tracer.observe(x)
        log_request(x, config.logging.requests)


def _together(charges: Sequence[Charge]) -> Charge:
    """Return several charges as one."""
    usage = Usage(
        input_tokens=sum(one.usage.input_tokens for one in charges),
        output_tokens=sum(one.usage.output_tokens for one in charges),
    )
    return Charge(usage, "estimated", sum(one.cost_nanos for one in charges), all(one.priced for one in charges))
