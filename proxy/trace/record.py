"""The content of a trace: turns an `Exchange` into one JSON object whose keys are the columns of `request_traces`.

Rule of the file: no I/O, and never prompt or answer text, credentials, or header values beyond the named client
metadata. Every string from a client or provider is bounded in length: names where they are read (`identify`,
`documents.printable`), the rest here. Text and numbers that PostgreSQL refuses (NUL, lone surrogates, integers beyond
64 bits) are made storable here, because one such row would block its batch.

    begin(x)          what is known before dispatch; shared by intent and final, and repeated by a caller's next request
    intent(x, head)   before dispatch: everything that an `interrupted` trace needs if this process dies
    final(x, head)    before the last byte is sent: the whole record; works for an exchange that ended in any phase
    content(x)        the captured bodies, only if capture is on

The time of a trace is the time inside its id, so that the id alone determines its day partition.
A client may have put a credential in place of a name: `secrets`, our own, and what has the shape of one are masked.
Cost: about 14 microseconds per final with one attempt, 3 per intent.

Source: RFC 9562 section 5.7 (UUIDv7); PostgreSQL "JSON Types" (what jsonb refuses).
"""

from binascii import b2a_base64, hexlify
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from random import getrandbits
from struct import Struct
from typing import Any, Literal, NamedTuple

import orjson
from orjson import Fragment

from proxy.exchange import Attempt, Candidate, Charge, Exchange, Outcome, Usage
from proxy.nouns.candidates import RoutePlan
from proxy.nouns.holds import Bound, Hold
from proxy.openai.input_text import text_bound
from proxy.trace.calls import busy_seconds, cost_of, llm_call, tool_calls, totals
from proxy.trace.client import client_of
from proxy.trace.decision import decision, judged, repeated
from proxy.trace.failure import error_info, unexplained
from proxy.trace.policy import policy_of
from proxy.trace.redact import redact, size_of
from proxy.trace.values import MAX_BIGINT, TEXT, encode, milliseconds, written

_REMEMBERED_HEADS = 256
_GROUPS = Struct("8s4s4s4s12s").unpack
Document = dict[str, Any]
Estimate = Callable[[str | None, int], Charge]
"""Prices what an interrupted request may have used: requested model, UTF-8 bytes of its input text (at least 1)."""


def trace_id(now_ms: int) -> str:
    """Return a new UUIDv7 for a request that began at `now_ms`; ids of the same millisecond are in random order."""
    # A system call per id (os.urandom) would cost more than the rest; ids are names, not secrets.
    value = now_ms << 80 | getrandbits(80)
    value = value & ~(0xF000_C000_0000_0000_0000) | 0x7000_8000_0000_0000_0000
    return b"-".join(_GROUPS(hexlify(value.to_bytes(16, "big")))).decode()


def created_at_ms(trace_id: str) -> int:
    """Return the wall-clock milliseconds inside a UUIDv7 in its canonical form."""
    return int(trace_id[:8] + trace_id[9:13], 16)


def created_at(trace_id: str) -> datetime:
    """Return the partition key of a trace: the time inside its id, in UTC. Raises ValueError beyond the year 9999."""
    return datetime.fromtimestamp(created_at_ms(trace_id) / 1000, UTC)


def begin(x: Exchange, *, tracing: bool = True, secrets: tuple[bytes, ...] = ()) -> bytes:
    """Return the beginning of the record: what is known before a provider is called, as JSON without its last brace.

    Intent and final share it, so that it is encoded once.
    """
    inbound, principal, request = x.inbound, x.principal, x.request
    size = request.request_bytes if request else inbound.content_length or 0
    seconds, millis = divmod(x.started_at_ms, 1000)
    own = (x.trace_id.encode(), _second(seconds), millis, size if size < MAX_BIGINT else MAX_BIGINT)
    tells_more = x.judgement is not None or x.cache is not None
    repeats = None if x.plan is None or tells_more or not tracing else repeated(x.plan)
    conversation = request.conversation if request else None
    if repeats is not None and conversation is not None:
        repeats = None
    told = (
        x.request_type or inbound.operation.request_type,
        inbound.operation.name,
        principal.user_id if principal else None,
        principal.project_id if principal else None,
        request.model if request else None,
        request.stream if request else False,
        conversation,
        request.continues if request else None,
        (inbound.method[:32], inbound.path[:TEXT]) if tracing else None,
        repeats or (_decided(x) if tracing else None),
        secrets,
    )
    facts = tuple.__new__(_Facts, told)  # in half the time of the constructor (callgrind)
    rest = _told(facts) if repeats is None else _told_again(facts)
    return b'{"id":"%b","created_at":"%b.%03d000+00:00","request_bytes":%d,%b' % (*own, rest)


def _decided(x: Exchange) -> list[Document]:
    """Return the entries of `routing_decisions`."""
    decided = [] if x.plan is None else [decision(x.plan, x.cache)]
    if x.judgement is not None:
        decided += judged(x.judgement)
    return decided


class _Facts(NamedTuple):
    """The part of a beginning that rarely changes from one request of a caller to the next."""

    request_type: str
    operation: str
    user_id: str | None
    project_id: str | None
    model: str | None
    stream: bool
    conversation: str | None
    continues: str | None
    asked: tuple[str, str] | None
    """Method and path; `None`: they are not recorded."""
    decided: list[Document] | tuple[str, str, str | None] | None
    """The entries of `routing_decisions`, or what `decision.repeated` returns."""
    secrets: tuple[bytes, ...]


def _told(facts: _Facts) -> bytes:
    """Return the members for these facts, without braces."""
    document: Document = {
        "request_type": facts.request_type,
        "operation": facts.operation,
        "user_id": facts.user_id,
        "project_id": facts.project_id,
        "model": facts.model,
        "stream": facts.stream,
    }
    if facts.conversation is not None:
        document["conversation_ref"] = facts.conversation
    if facts.continues is not None:
        document["previous_response_id"] = facts.continues
    if facts.asked is not None:
        document["method"], document["path"] = facts.asked
    if decided := facts.decided:
        if isinstance(decided, tuple):
            reason, upstream, model = decided
            decided = [decision(RoutePlan((Candidate(upstream, model),), reason))]
        document["routing_decisions"] = decided
    return written(document, facts.secrets)[1:-1]


_told_again = lru_cache(_REMEMBERED_HEADS)(_told)


@lru_cache(2)
def _second(seconds: int) -> bytes:
    """Return a second since 1970 as it begins a timestamp in UTC."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat().encode()


def intent(
    x: Exchange,
    head: bytes,
    bound: Bound | None = None,
    spent: Charge | None = None,
    *,
    secrets: tuple[bytes, ...] = (),
) -> bytes:
    """Return what must be known if this process dies before `final`: written before a provider is called.

    `bound`: what is reserved, and would be charged then; `None` without a quota: then `spent` is the cost of earlier
    attempts.
    """
    candidate = x.attempts[-1].candidate if x.attempts else _first_candidate(x)
    request = (x.attempts[-1].request if x.attempts else None) or x.request
    figures: Document = {
        "billable": x.inbound.operation.billable or bound is not None,
        "input_text_bytes": text_bound(request) if request and bound is None else 0,
        "quota": quota_of(x.hold),
        "reserved": None if bound is None else [bound.input_tokens, bound.output_tokens, bound.cost_nanos],
    }
    if spent is not None:
        figures["spent"] = [spent.usage.input_tokens, spent.usage.output_tokens, spent.cost_nanos]
    named = _named(None if candidate is None else (candidate.upstream, candidate.model), secrets)
    return b"%b,%b,%b" % (head, encode(figures)[1:-1], named)


@lru_cache(_REMEMBERED_HEADS)
def _named(candidate: tuple[str, str | None] | None, secrets: tuple[bytes, ...]) -> bytes:
    """Return the end of an intent: provider and model of its attempt. Cached, as a caller repeats them."""
    return written({"candidate": candidate}, secrets)[1:]


def final(x: Exchange, head: bytes | None = None, *, tracing: bool = True, secrets: tuple[bytes, ...] = ()) -> bytes:
    """Return the record of an exchange. `head`: the one used for the intent, if there was one and it still holds.

    `tracing` false keeps only what accounting needs.
    """
    ended = x.ended if x.ended is not None else _latest(x)
    upstream_s, total_s = busy_seconds(x.attempts, ended), ended - x.started
    answering, status, first_byte_at = x.answering, x.delivery.status, x.delivery.committed_at
    if first_byte_at is None and answering is not None:
        first_byte_at = answering.first_byte_at
    # Numbers, texts of our own making and what was searched before: no credential can be in them.
    figures: Document = {
        "quota": quota_of(x.hold),
        "outcome": x.outcome or "internal_error",
        # A buffered answer has no status line yet: the error's status is what will be sent.
        "status": x.error.http_status if status is None and x.error is not None else status,
        "total_duration_ms": milliseconds(total_s),
        "upstream_ms": milliseconds(upstream_s),
        "overhead_ms": milliseconds(total_s - upstream_s if total_s > upstream_s else 0.0),
        "first_byte_ms": None if first_byte_at is None else milliseconds(first_byte_at - x.started),
        "response_bytes": _response_bytes(x, answering),
        **totals(x.charges),
    }
    names: Document = {"llm_calls": [llm_call(x, attempt, ended, tracing=tracing) for attempt in x.attempts]}
    if answering is not None:
        used = answering.used
        names["upstream"] = answering.candidate.upstream
        names["response_model"] = used.response_model
        names["upstream_request_id"] = answering.request_id
        if x.request is None or x.request.conversation is None:
            names["conversation_ref"] = used.conversation
        if x.inbound.operation.is_chained:
            names["response_id"] = used.latest_response_id or used.response_id
    if tracing:
        figures["phases"] = _phases(x)
        figures["client"] = Fragment(client_of(x, secrets))
        names["tool_calls"] = tool_calls(x)
        names["error_info"] = error_info(x)
        names["policy"] = policy_of(x.verdict)
    if head is None:
        head = begin(x, tracing=tracing, secrets=secrets)
    return b"%b,%b,%b" % (head, encode(figures)[1:-1], written(names, secrets)[1:])


def interrupted(
    intent_body: bytes,
    estimate: Estimate,
    outcome: Outcome = "interrupted",
    settled: Hold | None = None,
    *,
    is_whole: bool = False,
) -> bytes:
    """Return the final record of an intent whose process died, or failed, before it wrote one.

    How far the provider got is unknown, so a billable request is charged what was reserved for it, or by `estimate`
    without a reservation; never nothing. `settled`: its leases were charged already, with `estimate` as their total.
    `is_whole`: the estimate covers all calls; otherwise earlier ones in the intent are added.
    """
    document: dict[str, Any] = orjson.loads(intent_body)
    reserved, spent = document.pop("reserved"), document.pop("spent", None)
    if settled is not None:
        document["quota"] = quota_of(settled)
    elif reserved is not None:
        estimate = _as_reserved(*reserved)
    if spent is not None and not is_whole:
        estimate = _beside(estimate, *spent)
    billable = document.pop("billable")
    text_bytes = document.pop("input_text_bytes")
    upstream, model = document.pop("candidate") or (None, None)
    charges: tuple[Charge, ...] = ()
    if billable:
        charges = (estimate(model or document["model"], max(text_bytes, 1)),)
        document["llm_calls"] = [{"index": 0, "upstream": upstream, "model": model, **cost_of(charges[0])}]
    document.update(totals(charges))
    document["upstream"] = upstream
    document["outcome"] = outcome
    document["error_info"] = unexplained(outcome)
    return encode(document)


def quota_of(hold: Hold | None) -> Document | None:
    """Return how leases cover a reservation or a charge, as the ledger reads it."""
    if hold is None:
        return None
    document: Document = {
        "window": hold.window,
        "leases": [[share.lease_id, share.tokens, share.cost_nanos] for share in hold.shares],
    }
    if hold.unleased is not None:
        document["unleased"] = hold.unleased
    return document


def _as_reserved(input_tokens: int, output_tokens: int, nanos: int) -> Estimate:
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return lambda _model, _text_bytes: Charge(usage, "estimated", nanos, priced=True)


def _beside(estimate: Estimate, input_tokens: int, output_tokens: int, nanos: int) -> Estimate:
    """Return an estimate of the last attempt plus the cost of those before it."""

    def both(model: str | None, text_bytes: int) -> Charge:
        last = estimate(model, text_bytes)
        usage = Usage(last.usage.input_tokens + input_tokens, last.usage.output_tokens + output_tokens)
        return Charge(usage, "estimated", last.cost_nanos + nanos, last.priced)

    return both


def content(x: Exchange, mode: Literal["redacted", "full"]) -> bytes | None:
    """Return the captured bodies as a record of `trace_contents`, `None` if nothing was captured."""
    capture = x.capture
    if capture is None or (capture.request is None and not capture.response):
        return None
    request, limit = capture.request, capture.limit_bytes
    document = {
        "trace_id": x.trace_id,
        "created_at": created_at(x.trace_id),
        "request": None if request is None else _kept(request, limit, mode),
        "response": _kept(bytes(capture.response), limit, mode),
        "truncated": capture.truncated or len(request or b"") > limit,
        "mode": mode,
    }
    return orjson.dumps(document)


def _kept(body: bytes, limit: int, mode: Literal["redacted", "full"]) -> str:
    """Return the stored form of a body, as base64. A truncated body is not worth the time to redact it."""
    kept = body[:limit] if mode == "full" else size_of(body) if len(body) > limit else redact(body)
    return b2a_base64(kept, newline=False).decode()


def _first_candidate(x: Exchange) -> Candidate | None:
    return x.plan.candidates[0] if x.plan is not None and x.plan.candidates else None


def _response_bytes(x: Exchange, answering: Attempt | None) -> int:
    """Return the size of the answer: the last piece of a buffered one is sent only after this record is written."""
    edited = x.request is not None and x.request.strip_usage and x.replayed is None
    if x.error is None and answering is not None and not edited:
        return answering.meter.response_bytes
    return x.delivery.bytes


def _phases(x: Exchange) -> dict[str, float]:
    phases: dict[str, float] = {}
    before = x.started
    for name, at in x.marks.items():
        phases[name] = ((at - before) * 1_000_000.0 + 0.5) // 1.0 / 1000.0  # inlined `milliseconds`
        before = at
    return phases


def _latest(x: Exchange) -> float:
    """Return the latest known time of an exchange without an end."""
    moments = [x.started, *x.marks.values()]
    for attempt in x.attempts:
        moments += [attempt.started, attempt.first_byte_at or 0.0, attempt.ended or 0.0]
    return max(moments)
