"""The spans of a finished exchange, in OTLP form.

    request   SERVER    from the request's head to the answer's end; child of the caller's span
      policy  INTERNAL  while the request was scanned
      attempt CLIENT    one for each call of a provider, with the names of the GenAI conventions

Rule of the file: never a prompt, an answer, a credential or a user; values from a client or provider are bounded. Only
attempts have usage and cost, so that no sum counts them twice. Pure.

Cost: the three spans of a typical request take about five times as long as its record; nothing is built while they are
disabled or for requests that are not sampled.

Source: OpenTelemetry semantic conventions: GenAI spans (`gen_ai.*`, status Development), HTTP spans, recording errors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from proxy.config.otel import Otel
from proxy.config.upstreams import UpstreamEntry
from proxy.credentials import cover
from proxy.exchange import Attempt, Exchange, Inbound
from proxy.trace import context as w3c
from proxy.trace.context import Context
from proxy.trace.protobuf import Value, attributes, fixed32, fixed64, message, number, text
from proxy.trace.values import NAME, TEXT, bounded

Pairs = Sequence[tuple[str, Value | None]]
_INTERNAL, _SERVER, _CLIENT = 1, 2, 3
_ERROR: Final = 2
_SAMPLED: Final = 1
_KNOWN_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_POLICY_PART: Final = 1
_FIRST_ATTEMPT: Final = 2
_ATTRIBUTES: Final = 9
_MOST_RULES: Final = 32
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FAULTS: Final = frozenset(
    {"upstream_failed", "timeout", "truncated", "internal_error", "drain_abort", "overload_abort"}
)
_CONTEXT_HEADERS: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})


class Place(NamedTuple):
    """What spans say about a provider."""

    provider: str
    address: str
    port: int


class Spans(Protocol):
    """Receives spans."""

    def put(self, spans: Sequence[bytes]) -> None:
        """Take spans, or drop and count them. Never waits."""


class Tracer:
    """Builds the spans of exchanges for one version of the configuration. `secrets`: must not appear in them."""

    def __init__(
        self, settings: Otel, upstreams: Sequence[UpstreamEntry], sink: Spans, secrets: Sequence[bytes] = ()
    ) -> None:
        self._settings = settings
        self._exports = settings.url is not None
        self._sink = sink
        self._secrets = secrets
        self._places = {upstream.name: _place(upstream) for upstream in upstreams}

    def observe(self, x: Exchange) -> None:
        """Export the spans of a finished exchange."""
        context = w3c.read(x.inbound.fields, x.trace_id)
        if self._exports and self._is_sampled(context):
            self._sink.put([cover(span, self._secrets) for span in self._spans(x, context)])

    def outbound(self, x: Exchange, attempt: Attempt) -> Inbound:
        """Return the request's head with the trace headers that the provider of an attempt may see."""
        inbound = x.inbound
        if self._settings.upstream == "pass":
            return inbound
        if self._settings.upstream == "drop":
            return replace(inbound, headers=_without(inbound, _CONTEXT_HEADERS))
        context = w3c.read(inbound.fields, x.trace_id)
        parent = w3c.span_id(x.trace_id, _FIRST_ATTEMPT + attempt.index)
        sampled = self._exports and self._is_sampled(context)
        header = w3c.traceparent(context, parent, sampled=sampled)
        kept = _without(inbound, frozenset({b"traceparent"} if context.parent_id else _CONTEXT_HEADERS - {b"baggage"}))
        return replace(inbound, headers=(*kept, (b"traceparent", header)))

    def _is_sampled(self, context: Context) -> bool:
        return w3c.is_sampled(context, self._settings.sampler, self._settings.sampler_arg)

    def _spans(self, x: Exchange, context: Context) -> Iterator[bytes]:
        own, end = w3c.span_id(x.trace_id), x.ended if x.ended is not None else x.started
        failed = (x.delivery.status or 0) >= 500 or x.outcome in _FAULTS
        yield _Span(own, context.parent_id, _request_name(x), _SERVER, x.started, end, _of_request(x), failed).encoded(
            x, context
        )
        if x.verdict is not None and "scan" in x.marks:
            began = x.marks.get("parse", x.started)
            policy = w3c.span_id(x.trace_id, _POLICY_PART)
            yield _Span(policy, own, "policy", _INTERNAL, began, x.marks["scan"], _of_policy(x)).encoded(x, context)
        for attempt in x.attempts:
            part = w3c.span_id(x.trace_id, _FIRST_ATTEMPT + attempt.index)
            name = " ".join(filter(None, (_operation(x), bounded(attempt.candidate.model, NAME))))
            ended = end if attempt.ended is None else attempt.ended
            pairs = _of_attempt(x, attempt, self._places)
            failed = _failure(attempt) is not None
            yield _Span(part, own, name, _CLIENT, attempt.started, ended, pairs, failed).encoded(x, context)


def tracer(settings: Otel, upstreams: Sequence[UpstreamEntry], sink: Spans, secrets: Sequence[bytes]) -> Tracer | None:
    """Return the tracer; `None` if neither spans nor trace headers are wanted, so that it costs nothing."""
    if settings.url is None and settings.upstream == "pass":
        return None
    return Tracer(settings, upstreams, sink, secrets)


class _Span(NamedTuple):
    """One span. Times are monotonic seconds."""

    own_id: str
    parent_id: str | None
    name: str
    kind: int
    started: float
    ended: float
    pairs: Pairs
    failed: bool = False

    def encoded(self, x: Exchange, context: Context) -> bytes:
        """Return the span as an OTLP message."""
        is_remote = self.parent_id is not None and self.parent_id == context.parent_id
        return b"".join(
            (
                message(1, bytes.fromhex(context.trace_id)),
                message(2, bytes.fromhex(self.own_id)),
                text(3, context.state) if context.state else b"",
                b"" if self.parent_id is None else message(4, bytes.fromhex(self.parent_id)),
                text(5, self.name),
                number(6, self.kind),
                fixed64(7, _nanos(x, self.started)),
                fixed64(8, _nanos(x, max(self.started, self.ended))),
                attributes(_ATTRIBUTES, self.pairs),
                message(15, number(3, _ERROR)) if self.failed else b"",
                fixed32(16, _SAMPLED | _KNOWN_REMOTE | (_IS_REMOTE if is_remote else 0)),
            )
        )


def _of_request(x: Exchange) -> Pairs:
    inbound, request, error = x.inbound, x.request, x.error
    return (
        ("http.request.method", inbound.method if inbound.method in _METHODS else "_OTHER"),
        ("url.path", bounded(inbound.path, TEXT)),
        ("http.response.status_code", x.delivery.status),
        ("error.type", None if error is None else error.code or error.type),
        ("gen_ai.request.model", bounded(request.model, NAME) if request is not None else None),
        ("gen_ai.conversation.id", bounded(request.conversation, NAME) if request is not None else None),
        ("sidegate.trace.id", x.trace_id),
        ("sidegate.operation", inbound.operation.name),
        ("sidegate.outcome", x.outcome),
        ("sidegate.project.id", x.principal.project_id if x.principal is not None else None),
        ("sidegate.route.reason", x.plan.reason if x.plan is not None else None),
    )


def _of_policy(x: Exchange) -> Pairs:
    verdict = x.verdict
    assert verdict is not None
    found = [f"{direction} {rule} {action}" for direction, rule, action in list(verdict.counts)[:_MOST_RULES]]
    return (
        ("sidegate.policy.version", verdict.version),
        ("sidegate.policy.findings", found or None),
        ("sidegate.policy.finding_count", sum(verdict.counts.values())),
        ("sidegate.policy.unscanned_count", sum(verdict.missed.values())),
    )


def _of_attempt(x: Exchange, attempt: Attempt, places: Mapping[str, Place]) -> Pairs:
    meter, first = attempt.used, attempt.first_byte_at
    charge = x.charges[attempt.index] if attempt.index < len(x.charges) else None
    place = places.get(attempt.candidate.upstream, Place("openai", "", 0))
    is_stream = x.request is not None and x.request.stream
    pairs: list[tuple[str, Value | None]] = [
        ("gen_ai.operation.name", _operation(x)),
        ("gen_ai.provider.name", place.provider),
        ("gen_ai.request.model", bounded(attempt.candidate.model, NAME)),
        ("gen_ai.response.model", bounded(meter.response_model, NAME)),
        ("gen_ai.response.id", bounded(meter.response_id, NAME)),
        ("gen_ai.response.finish_reasons", [one[:NAME] for one in meter.finish_reasons[:_MOST_RULES]] or None),
        ("gen_ai.request.stream", True if is_stream else None),
        ("server.address", place.address or None),
        ("server.port", place.port or None),
        ("http.response.status_code", attempt.status),
        ("error.type", _failure(attempt)),
        ("sidegate.upstream", attempt.candidate.upstream),
        ("sidegate.layer", attempt.candidate.layer),
        ("sidegate.attempt.why", attempt.why),
    ]
    if is_stream and first is not None:
        pairs.append(("gen_ai.response.time_to_first_chunk", first - attempt.started))
    if charge is not None and charge.usage_source != "none":
        usage = charge.usage
        pairs += (
            ("gen_ai.usage.input_tokens", usage.input_tokens),
            ("gen_ai.usage.output_tokens", usage.output_tokens),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens or None),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens or None),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens or None),
            ("gen_ai.usage.audio.input_tokens", usage.audio_input_tokens or None),
            ("gen_ai.usage.audio.output_tokens", usage.audio_output_tokens or None),
            ("gen_ai.usage.image.input_tokens", usage.image_input_tokens or None),
            ("sidegate.usage.source", charge.usage_source),
            ("sidegate.cost", charge.cost_nanos / 1e9),
        )
    return pairs


def _failure(attempt: Attempt) -> str | None:
    """Return the error class of a failed attempt, `None` if it did not fail."""
    if attempt.error is not None:
        return attempt.error.code or attempt.error.type
    if attempt.used.stream_error is not None:
        return bounded(attempt.used.stream_error, NAME)
    if attempt.status is not None and attempt.status >= 400:
        return str(attempt.status)
    return attempt.failure


def _request_name(x: Exchange) -> str:
    """Return a name of low cardinality: paths contain ids."""
    method = x.inbound.method if x.inbound.method in _METHODS else "HTTP"
    operation = x.inbound.operation.name
    return method if operation == "unknown" else f"{method} {operation}"


def _operation(x: Exchange) -> str:
    return x.inbound.operation.gen_ai_operation or x.inbound.operation.request_type


def _nanos(x: Exchange, moment: float) -> int:
    """Return a monotonic time as nanoseconds since 1970."""
    return x.started_at_ms * 1_000_000 + int((moment - x.started) * 1_000_000_000)


def _without(inbound: Inbound, names: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(field for field in inbound.headers if field[0].lower() not in names)


def _place(upstream: UpstreamEntry) -> Place:
    parts = urlsplit(upstream.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Place(upstream.gen_ai_provider, parts.hostname or "", port)
