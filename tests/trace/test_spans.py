"""The spans of an exchange, read with the protocol's own definitions."""

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proxy.config.otel import Otel
from proxy.config.upstreams import UpstreamEntry
from proxy.errors import UpstreamTimeout
from proxy.exchange import Attempt, Candidate, Charge, Exchange, Usage
from proxy.trace.spans import Tracer, tracer
from tests.trace.exchanges import CHAT, STARTED, STARTED_AT_MS, begun, finished
from tests.trace.test_context import GOOD, PARENT, TRACE
from tests.trace.test_protobuf import plain

GEN_AI = replace(CHAT, gen_ai_operation="chat")
UPSTREAMS = (
    UpstreamEntry(name="default", base_url="https://api.openai.com/v1"),
    UpstreamEntry(name="azure", kind="azure", api_version="1", base_url="http://x.openai.azure.com:81/openai"),
)


class Sink:
    def __init__(self) -> None:
        self.spans: list[bytes] = []

    def put(self, spans) -> None:
        self.spans += spans


def traced(x: Exchange, secrets: tuple[bytes, ...] = (), **settings: Any) -> list[Span]:
    sink = Sink()
    made = tracer(Otel(**{"endpoint": "http://h", **settings}), UPSTREAMS, sink, secrets)
    assert made is not None
    made.observe(x)
    return [Span.FromString(span) for span in sink.spans]


def pairs(span: Span) -> dict[str, Any]:
    found = [(pair.key, plain(pair)) for pair in span.attributes]
    assert len(dict(found)) == len(found)
    return dict(found)


def with_headers(x: Exchange, **headers: str) -> Exchange:
    lines = tuple((name.encode(), value.encode()) for name, value in headers.items())
    fields = {name.lower(): value for name, value in lines}
    x.inbound = replace(x.inbound, headers=(*x.inbound.headers, *lines), fields={**x.inbound.fields, **fields})
    return x


def test_spans_when_a_request_went_well_then_request_policy_and_attempt() -> None:
    x = finished(operation=GEN_AI, conversation="thread-9")
    x.marks["scan"] = STARTED + 0.0009
    request, policy, attempt = traced(x)
    own = x.trace_id.replace("-", "")
    assert {span.trace_id.hex() for span in (request, policy, attempt)} == {own}
    assert (request.parent_span_id, request.span_id.hex()) == (b"", own[16:])
    assert policy.parent_span_id == attempt.parent_span_id == request.span_id
    assert len({request.span_id, policy.span_id, attempt.span_id}) == 3
    assert [span.kind for span in (request, policy, attempt)] == [
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_INTERNAL,
        Span.SPAN_KIND_CLIENT,
    ]
    assert [span.name for span in (request, policy, attempt)] == [
        "POST chat.completions.create",
        "policy",
        "chat gpt-4o",
    ]
    assert request.start_time_unix_nano == STARTED_AT_MS * 1_000_000
    assert abs(request.end_time_unix_nano - request.start_time_unix_nano - 900_500_000) < 1000
    assert abs(attempt.start_time_unix_nano - request.start_time_unix_nano - 1_000_000) < 1000
    assert not any(span.HasField("status") for span in (request, policy, attempt))
    assert [span.flags for span in (request, policy, attempt)] == [0x101] * 3


def test_attributes_when_a_request_went_well_then_those_of_the_conventions_and_no_content() -> None:
    x = finished(operation=GEN_AI, conversation="thread-9")
    x.marks["scan"] = STARTED + 0.0009
    request, policy, attempt = traced(x)
    assert pairs(request) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.conversation.id": "thread-9",
        "sidegate.trace.id": x.trace_id,
        "sidegate.operation": "chat.completions.create",
        "sidegate.outcome": "ok",
        "sidegate.project.id": "default-project",
        "sidegate.route.reason": "the only upstream",
    }
    assert pairs(policy) == {
        "sidegate.policy.version": "4f1d",
        "sidegate.policy.findings": ["prompt ssn redact"],
        "sidegate.policy.finding_count": 1,
        "sidegate.policy.unscanned_count": 0,
    }
    assert pairs(attempt) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": pytest.approx(0.209),
        "server.address": "api.openai.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "sidegate.upstream": "default",
        "sidegate.attempt.why": "first",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 7,
        "sidegate.usage.source": "provider",
        "sidegate.cost": pytest.approx(0.000123456),
    }
    written = b"".join(span.SerializeToString() for span in (request, policy, attempt))
    assert b"canary" not in written


def test_trace_when_the_caller_has_one_then_it_goes_on_with_its_state_and_choice() -> None:
    x = with_headers(finished(), traceparent=GOOD, tracestate="a=1")
    request, attempt = traced(x)
    assert (request.trace_id.hex(), request.parent_span_id.hex(), request.trace_state) == (TRACE, PARENT, "a=1")
    assert (request.flags, attempt.flags) == (0x301, 0x101)
    assert traced(with_headers(finished(), traceparent=GOOD[:-2] + "00")) == []
    assert len(traced(with_headers(finished(), traceparent=GOOD[:-2] + "00"), sampler="always_on")) == 2
    assert traced(finished(), sampler="always_off") == []


def test_attempts_when_one_failed_then_each_has_its_span_and_error() -> None:
    x = finished()
    error = UpstreamTimeout("Too late.", code="upstream_first_byte_timeout")
    failed = Attempt(0, Candidate("azure", "gpt-4o", "L1"), STARTED, ended=STARTED + 0.2, error=error)
    x.attempts[0].index, x.attempts[0].why = 1, "fallback"
    x.attempts.insert(0, failed)
    x.charges = (Charge(Usage(), "none", 0, True), *x.charges)
    _, first, second = traced(x)
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert (
        pairs(first).items()
        >= {
            "error.type": "upstream_first_byte_timeout",
            "gen_ai.provider.name": "azure.ai.openai",
            "server.address": "x.openai.azure.com",
            "server.port": 81,
            "sidegate.layer": "L1",
        }.items()
    )
    assert "gen_ai.usage.input_tokens" not in pairs(first)
    assert (pairs(second)["sidegate.attempt.why"], second.HasField("status")) == ("fallback", False)


def test_status_when_a_request_failed_then_an_error_only_if_it_was_not_the_clients_fault() -> None:
    x = finished()
    x.delivery.status, x.outcome, x.attempts[0].status = 404, "upstream_error", 404
    request, attempt = traced(x)
    assert (request.HasField("status"), attempt.status.code) == (False, Status.STATUS_CODE_ERROR)
    assert pairs(attempt)["error.type"] == "404"
    x = begun()
    x.outcome, x.delivery.status = "internal_error", None
    (request,) = traced(x)
    assert request.status.code == Status.STATUS_CODE_ERROR
    assert request.end_time_unix_nano == request.start_time_unix_nano


def test_names_when_they_are_keys_or_endless_then_covered_and_bounded() -> None:
    key = "sg-0123456789abcdef-0123"
    x = finished(model=f"{key} " + "m" * 5000)
    x.attempts[0].candidate = Candidate("default", "the-key-of-the-provider")
    x.inbound = replace(x.inbound, method="X" * 3000)
    request, attempt = traced(x, (b"the-key-of-the-provider",))
    assert pairs(request)["gen_ai.request.model"] == "*" * len(key) + " " + "m" * (255 - len(key))
    assert pairs(request)["http.request.method"] == "_OTHER"
    assert attempt.name == "chat " + "*" * 23
    assert sum(len(span.SerializeToString()) for span in (request, attempt)) < 3000


@pytest.mark.parametrize("mode", ["pass", "continue", "drop"])
@pytest.mark.parametrize("header", [GOOD, "", "malformed"])
def test_outbound_when_trace_headers_come_then_what_is_configured_goes_to_the_provider(mode: str, header: str) -> None:
    x = finished()
    if header:
        x = with_headers(x, Traceparent=header, TraceState="a=1", baggage="user=b")
    made = Tracer(Otel(endpoint="http://h", upstream=mode), UPSTREAMS, Sink())
    headers = made.outbound(x, x.attempts[0]).headers
    sent = {name.lower().decode(): value.decode() for name, value in headers}
    shown = {name: sent.get(name) for name in ("traceparent", "tracestate", "baggage")}
    (_, attempt) = traced(x)
    ours = f"00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01"
    came = (header or None, "a=1" if header else None, "user=b" if header else None)
    expected = {
        "pass": came,
        "continue": (ours, "a=1" if header == GOOD else None, came[2]),
        "drop": (None, None, None),
    }[mode]
    assert tuple(shown.values()) == expected
    assert len([name for name, _ in headers if name.lower() == b"traceparent"]) == (expected[0] is not None)
    assert sent["x-custom"] == "canary-header"


def test_tracer_when_nothing_is_asked_for_then_there_is_none() -> None:
    assert tracer(Otel(), UPSTREAMS, Sink(), ()) is None
    silent = tracer(Otel(upstream="drop"), UPSTREAMS, sink := Sink(), ())
    assert silent is not None
    silent.observe(finished())
    assert sink.spans == []
