"""Exchanges as the pipeline leaves them, for the tests of traces."""

from proxy.exchange import (
    Attempt,
    Candidate,
    Charge,
    Delivery,
    Exchange,
    Inbound,
    Meter,
    Operation,
    ParsedRequest,
    Principal,
    RoutePlan,
    ToolCall,
    Usage,
    first_values,
)
from proxy.nouns.findings import Finding, Sighting, Verdict
from proxy.trace.record import trace_id

STARTED_AT_MS = 1_780_000_000_123
STARTED = 5000.0
CHAT = Operation("chat.completions.create", "chat", "json", "chat", billable=True, forces_stream_usage=True)
MODELS = Operation("models.list", "models", "none", "generic", billable=False)
HEADERS = (
    (b"Host", b"127.0.0.1:8080"),
    (b"User-Agent", b"OpenAI/Python 2.1.0"),
    (b"Authorization", b"Bearer sk-canary-0123456789"),
    (b"X-Stainless-Lang", b"python"),
    (b"X-Stainless-Package-Version", b"2.1.0"),
    (b"x-stainless-retry-count", b"1"),
    (b"X-Custom", b"canary-header"),
)


def begun(at_ms: int = STARTED_AT_MS, *, operation: Operation = CHAT) -> Exchange:
    """Return an exchange of which only the request head is known."""
    path = "/v1/chat/completions"
    inbound = Inbound(
        "POST", path + "?q=canary-query", path, HEADERS, first_values(HEADERS), operation, "127.0.0.1", 321, True
    )
    return Exchange(trace_id(at_ms), at_ms, STARTED, inbound)


def planned(
    at_ms: int = STARTED_AT_MS,
    *,
    user: str = "alice",
    project: str = "default-project",
    model: str | None = "gpt-4o",
    conversation: str | None = None,
    tool_results: tuple[ToolCall, ...] = (),
    operation: Operation = CHAT,
    continues: str | None = None,
) -> Exchange:
    """Return an exchange just before its dispatch."""
    x = begun(at_ms, operation=operation)
    x.principal = Principal(user, project, "header")
    x.request = ParsedRequest(
        body=b'{"messages":[{"content":"canary-prompt"}]}',
        document={"messages": [{"content": "canary-prompt"}]},
        model=model,
        stream=True,
        strip_usage=True,
        input_text_bytes=lambda: 1200,
        conversation=conversation or continues,
        user_hint=None,
        tool_results=tool_results,
        request_bytes=321,
        continues=continues,
    )
    x.plan = RoutePlan((Candidate("default", model),), "the only upstream")
    return x


def finished(
    at_ms: int = STARTED_AT_MS,
    *,
    cost_nanos: int = 123_456,
    usage: Usage | None = None,
    response_id: str = "chatcmpl-1",
    **facts,
) -> Exchange:
    """Return an exchange with one attempt that went well."""
    x = planned(at_ms, **facts)
    usage = usage or Usage(input_tokens=100, output_tokens=20, cached_input_tokens=5, reasoning_tokens=7)
    meter = Meter(
        usage=usage,
        output_text_bytes=80,
        response_model="gpt-4o-2024-08-06",
        response_id=response_id,
        finish_reasons=["tool_calls"],
        tool_calls=[ToolCall("call", "call_1", "get_weather", 17)],
        terminated=True,
        response_bytes=4000,
        events=20,
    )
    attempt = Attempt(0, Candidate("default", "gpt-4o"), STARTED + 0.001, sent=True, meter=meter)
    attempt.headers_at, attempt.first_byte_at, attempt.ended = STARTED + 0.2, STARTED + 0.21, STARTED + 0.9
    attempt.status, attempt.request_id = 200, "req_1"
    x.attempts.append(attempt)
    x.charges = (Charge(usage, "provider", cost_nanos, True),)
    x.delivery = Delivery(status=200, committed_at=STARTED + 0.211, bytes=3900)
    x.marks = {"identify": STARTED + 0.0001, "parse": STARTED + 0.0005, "relay": STARTED + 0.9}
    x.outcome, x.ended = "ok", STARTED + 0.9005
    x.verdict = Verdict("4f1d", 10)
    x.verdict.saw("prompt", 40)
    x.verdict.add(Sighting(Finding("ssn", "pii", "high", 3, 14), "redact", "prompt", "messages[0].content"))
    return x
