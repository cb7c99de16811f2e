"""Traces across the process: from the caller through Sidegate to the provider, as a collector sees them."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.fakes.collector import Collector
from tests.fakes.fixtures import Launch
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import PROVIDER_KEY, Sidegate
from tests.fakes.wire import exchange, post
from tests.trace.test_protobuf import plain

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "otel-prompt-canary"
CHAT = f'{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{PROMPT}"}}]}}'.encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


async def ask(proxy: Sidegate, case: str, *headers: str) -> str:
    reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, *headers, case=case))
    assert reply.status == 200
    return reply.trace_id


async def test_trace_when_the_caller_has_one_then_it_goes_on_to_the_provider_and_into_the_store(
    launch: Launch, provider: Provider, collector: Collector, case: str
) -> None:
    proxy = launch(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b",
        OTEL_SERVICE_NAME="beside-my-app",
        SIDEGATE__OTEL__UPSTREAM="continue",
        SIDEGATE__OTEL__BATCH_DELAY_S="0.1",
        SIDEGATE__METRICS__GEN_AI="true",
    )
    trace_id = await ask(proxy, case, f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1")
    await asyncio.to_thread(eventually, lambda: len(collector.spans) >= 3)
    request, policy, attempt = collector.spans
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert (request.name, policy.name, attempt.name) == ("POST chat.completions.create", "policy", "chat gpt-4o-mini")
    (seen,) = provider.seen(case)
    assert seen.value(b"traceparent") == f"00-{TRACE}-{attempt.span_id.hex()}-01".encode()
    assert seen.value(b"tracestate") == b"a=1"
    trace = await asyncio.to_thread(proxy.trace, trace_id)
    assert (trace["client"]["w3cTraceId"], trace["client"]["w3cParentId"]) == (TRACE, PARENT)
    usage = {pair.key: plain(pair) for pair in attempt.attributes if pair.key.startswith("gen_ai.usage")}
    assert usage["gen_ai.usage.input_tokens"] == trace["inputTokens"]
    assert usage["gen_ai.usage.output_tokens"] == trace["outputTokens"]
    (export,) = collector.exports
    assert (export.headers["api-key"], export.resource["service.name"]) == ("a b", "beside-my-app")
    written = export.message.SerializeToString()
    assert PROMPT.encode() not in written
    assert PROVIDER_KEY.encode() not in written
    metrics = proxy.metrics()
    assert metrics["sidegate_otel_spans_exported_total"] == 3
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-4o-mini"'
    name = f'gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type="input"}}'
    assert metrics[name] == trace["inputTokens"]

    await ask(proxy, f"{case}-last")
    assert await asyncio.to_thread(proxy.terminate) == 0
    assert len(collector.spans) == 6, "the last ones leave at the end of the process"
    assert collector.spans[-1].trace_id.hex() not in ("", TRACE)


async def test_trace_when_nothing_is_configured_then_headers_pass_as_they_came_and_nothing_is_shown(
    sidegate: Sidegate, provider: Provider, case: str
) -> None:
    await ask(sidegate, case, f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1", "baggage: b=2")
    (seen,) = provider.seen(case)
    names = (b"traceparent", b"tracestate", b"baggage")
    assert [seen.value(name) for name in names] == [f"00-{TRACE}-{PARENT}-01".encode(), b"a=1", b"b=2"]
    assert not [name for name in sidegate.metrics() if name.startswith(("sidegate_otel", "gen_ai"))]
