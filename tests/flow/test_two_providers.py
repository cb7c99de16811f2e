"""A provider that fails in every way, beside a healthy one: an answer before the first byte, no second call after it.

The proxy may repeat what nobody knows about (`retry_ambiguous`). Its breaker opens after three failures in a row, so
each case begins with an answer that closes it.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.judge import error_events
from tests.fakes.provider import Provider, answer_by_default
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, RESET, SILENCE, Step, chunk, head, script, sse_head, whole
from tests.fakes.wire import Address, exchange, post
from tests.flow.test_broken_provider import BEFORE_THE_HEAD, EVENT

CHAT = b'{"model":"auto","max_tokens":50,"messages":[{"role":"user","content":"hi there"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
LAYERS = """
L0: [{model: gpt-4o-mini, upstream: first}]
L1: [{model: gpt-4o, upstream: second}]
L2: [{model: o3, upstream: gone}, {model: gpt-5, upstream: second}]
L3: [{model: o1, upstream: hole}, {model: gpt-4.1, upstream: second}]
"""
OPEN_S = 0.3


@pytest.fixture(scope="module")
def second() -> Iterator[Provider]:
    running = Provider().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pair(
    provider: Provider,
    second: Provider,
    session_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    closed_port: int,
    black_hole: Address,
) -> Iterator[Sidegate]:
    directory = tmp_path_factory.mktemp("pair")
    (directory / "layers.yaml").write_text(LAYERS)
    addresses = {
        "first": provider.base_url,
        "second": second.base_url,
        "gone": f"http://127.0.0.1:{closed_port}/v1",
        "hole": f"http://{black_hole[0]}:{black_hole[1]}/v1",
    }
    upstreams = [{"name": name, "base_url": url, "api_key": "sk-own-0123456789"} for name, url in addresses.items()]
    timeouts = {"FIRST_BYTE_S": "0.8", "GAP_S": "0.5", "CONNECT_S": "0.3"}
    breaker = {"FAILURES": "3", "WINDOW_ATTEMPTS": "100000", "OPEN_S": str(OPEN_S), "OPEN_MAX_S": str(OPEN_S)}
    settings = {
        "SIDEGATE__UPSTREAMS": json.dumps(upstreams),
        "SIDEGATE__ROUTING__LAYERS_FILE": str(directory / "layers.yaml"),
        "SIDEGATE__ROUTING__RETRY_AMBIGUOUS": "true",
        "OPENAI_API_KEY": "",
        **{f"SIDEGATE__TIMEOUTS__{name}": value for name, value in timeouts.items()},
        **{f"SIDEGATE__ROUTING__BREAKER__{name}": value for name, value in breaker.items()},
    }
    running = Sidegate(directory, provider.base_url, session_database_url, settings).start()
    yield running
    running.stop()


async def healed(pair: Sidegate, case: str) -> None:
    """Let the first provider answer once, so that its breaker forgets."""
    reply = await exchange(pair.address, post("/v1/chat/completions", CHAT, case=f"{case}-before"))
    assert (reply.status, reply.value("x-sidegate-upstream")) == (200, "first")


def paid(trace: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    assert trace["totalCost"] == pytest.approx(sum(call["cost"] for call in trace["llmCalls"]))
    return [(call["upstream"], call["failure"], call["usageSource"]) for call in trace["llmCalls"]]


SAYS_NO = {
    f"{status}": script(whole(b'{"error":{}}', *more, status=f"{status} No"))
    for status, more in {500: (), 502: (), 503: ("Retry-After: 3600",), 504: (), 529: (), 404: ()}.items()
}
SILENT = {"silence": script(SILENCE), "continues, then silence": script(b"HTTP/1.1 100 Continue\r\n\r\n", SILENCE)}
FAILS = {**BEFORE_THE_HEAD, **SAYS_NO, **SILENT}


@pytest.mark.parametrize("failing", FAILS.values(), ids=FAILS)
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_answer_when_the_first_provider_fails_before_it_then_the_other_one_gives_it(
    provider: Provider, second: Provider, pair: Sidegate, case: str, body: bytes, failing: Any
) -> None:
    await healed(pair, case)
    provider.on(case, failing)
    reply = await exchange(pair.address, post("/v1/chat/completions", body, case=case))
    assert (reply.status, reply.ending) == (200, "complete")
    assert (reply.value("x-sidegate-attempts"), reply.value("x-sidegate-upstream")) == ("2", "second")
    assert (len(provider.seen(case)), len(second.billed(case))) == (1, 1)
    first, other = paid(pair.trace(reply.trace_id))
    is_sure = failing in SAYS_NO.values()
    assert first[2] == ("none" if is_sure else "estimated"), "what may have been executed is charged"
    assert other == ("second", None, "provider")


BILLED = b'{"error":{"message":"no","code":"x"},"usage":{"prompt_tokens":9,"completion_tokens":%b}}'
FAILS_PAID = {
    "status": (CHAT, script(whole(BILLED % b"5", status="503 No")), "overloaded"),
    "first event": (STREAM, script(sse_head(), chunk(b"data: " + BILLED % b"5" + b"\n\n"), LAST_CHUNK), "stream_error"),
}


@pytest.mark.parametrize(("body", "failing", "failure"), FAILS_PAID.values(), ids=FAILS_PAID)
async def test_answer_when_a_failure_before_it_tells_figures_then_both_are_paid(
    provider: Provider, pair: Sidegate, case: str, body: bytes, failing: Any, failure: str
) -> None:
    await healed(pair, case)
    provider.on(case, failing)
    reply = await exchange(pair.address, post("/v1/chat/completions", body, case=case))
    assert (reply.status, reply.value("x-sidegate-upstream")) == (200, "second")
    trace = pair.trace(reply.trace_id)
    assert paid(trace) == [("first", failure, "provider"), ("second", None, "provider")]
    assert (trace["llmCalls"][0]["inputTokens"], trace["llmCalls"][0]["outputTokens"]) == (9, 5)


@pytest.mark.parametrize("status", ["200 OK", "422 No"])
async def test_error_when_its_figures_are_impossible_then_they_use_nothing_up(
    provider: Provider, pair: Sidegate, case: str, status: str
) -> None:
    await healed(pair, case)
    provider.on(case, script(whole(BILLED % b"1000000000", status=status)))
    reply = await exchange(pair.address, post("/v1/chat/completions", CHAT, case=case))
    assert reply.body == BILLED % b"1000000000"
    trace = pair.trace(reply.trace_id)
    assert (trace["totalCost"], trace["usageSource"]) == (0, "none")
    assert trace["llmCalls"][0]["told"] == {"inputTokens": 9, "outputTokens": 1_000_000_000}


@pytest.mark.parametrize(("layer", "dead"), [("L2", "gone"), ("L3", "hole")], ids=["refused", "black hole"])
async def test_answer_when_a_provider_cannot_be_reached_then_the_other_one_gives_it(
    second: Provider, pair: Sidegate, case: str, layer: str, dead: str
) -> None:
    body = CHAT.replace(b"auto", layer.encode())
    reply = await exchange(pair.address, post("/v1/chat/completions", body, case=case))
    assert (reply.status, reply.value("x-sidegate-attempts"), len(second.billed(case))) == (200, "2", 1)
    assert paid(pair.trace(reply.trace_id)) == [(dead, "unsent", "none"), ("second", None, "provider")]


UNTIL_CLOSE = head("200 OK", content_type="text/event-stream")
JSON = b'{"object":"chat.completion","choices":[]}'
ANSWERS_BADLY: dict[str, tuple[bytes, tuple[Step, ...]]] = {
    "cut between events": (STREAM, (sse_head(), chunk(EVENT), CLOSE)),
    "cut in an event": (STREAM, (sse_head(), chunk(EVENT) + chunk(EVENT[:30]), RESET)),
    "no terminator": (STREAM, (sse_head(), chunk(EVENT), LAST_CHUNK)),
    "delimited by close": (STREAM, (UNTIL_CLOSE, EVENT, CLOSE)),
    "stalled": (STREAM, (sse_head(), chunk(EVENT), SILENCE)),
    "plain and cut": (CHAT, (whole(JSON)[:-9], CLOSE)),
    "plain, chunked and cut": (CHAT, (head("200 OK", "Transfer-Encoding: chunked") + chunk(JSON[:7]), RESET)),
    "plain and stalled": (CHAT, (whole(JSON)[:-9], SILENCE)),
}


@pytest.mark.parametrize(("body", "sent"), ANSWERS_BADLY.values(), ids=ANSWERS_BADLY)
async def test_answer_when_it_fails_after_its_head_then_nobody_else_is_asked(
    provider: Provider, second: Provider, pair: Sidegate, case: str, body: bytes, sent: tuple[Step, ...]
) -> None:
    await healed(pair, case)
    provider.on(case, script(*sent))
    reply = await exchange(pair.address, post("/v1/chat/completions", body, case=case))
    assert b"[DONE]" not in reply.body
    is_framed_as_ended = LAST_CHUNK in sent or (
        b"Transfer-Encoding" not in sent[0] and b"Content-Length" not in sent[0]
    )
    is_seen = reply.status >= 500 or reply.ending != "complete" or error_events(reply.body)
    assert is_seen or is_framed_as_ended, "the cut looks like a normal end"
    assert (len(provider.seen(case)), second.seen(case)) == (1, [])
    ((upstream, _, source),) = paid(pair.trace(reply.trace_id))
    assert (upstream, source) == ("first", "estimated")


SAID = b'"choices":[{"index":0,"%b":{"content":"good"},"finish_reason":"stop"}]'
WHOLE = b'{"object":"chat.completion",' + SAID % b"message" + b"%b}"
CHUNK = b"data: {" + SAID % b"delta" + b"%b}\n\n"
DONE = b"data: [DONE]\n\n"
FIGURES = b',"usage":{"prompt_tokens":%b,"completion_tokens":5,"total_tokens":9}'
ODD = {
    "missing": b"",
    "more than possible": FIGURES % b"999999999",
    **{name: FIGURES % name.encode() for name in ("1e18", "1000000000000000000", "-1", "NaN", '"9"')},
}
ODD_USAGE = {
    **{f"plain, {name}": (CHAT, whole(WHOLE % usage)) for name, usage in ODD.items()},
    **{f"stream, {name}": (STREAM, CHUNK % usage + DONE) for name, usage in ODD.items()},
    "stream, after its end": (STREAM, CHUNK % b"" + DONE + b'data: {"choices":[]' + FIGURES % b"4" + b"}\n\n"),
}


@pytest.mark.parametrize(("body", "sent"), ODD_USAGE.values(), ids=ODD_USAGE)
async def test_answer_when_its_usage_cannot_be_believed_then_it_passes_and_an_estimate_within_its_bound_is_charged(
    provider: Provider, second: Provider, pair: Sidegate, case: str, body: bytes, sent: bytes
) -> None:
    provider.on(case, script(sent) if body is CHAT else script(sse_head(), chunk(sent), LAST_CHUNK))
    reply = await exchange(pair.address, post("/v1/chat/completions", body, case=case))
    assert (reply.status, reply.ending) == (200, "complete")
    assert b'"content":"good"' in reply.body and reply.body.count(b"[DONE]") == (body is STREAM)
    assert (len(provider.seen(case)), second.seen(case)) == (1, [])
    trace = pair.trace(reply.trace_id)
    assert (paid(trace), trace["outcome"]) == ([("first", None, "estimated")], "ok")
    assert 0 < trace["totalCost"] < 0.001
    assert 0 < trace["inputTokens"] < 500 and 0 < trace["outputTokens"] <= 50


async def test_breaker_when_it_is_open_then_one_request_at_a_time_is_the_probe(
    provider: Provider, second: Provider, pair: Sidegate, case: str
) -> None:
    await healed(pair, case)
    gate = provider.gate()

    async def held(call: Any) -> None:
        await gate.passed()
        await answer_by_default(call)

    async def ask() -> str | None:
        reply = await exchange(pair.address, post("/v1/chat/completions", CHAT, case=case))
        assert (reply.status, reply.ending) == (200, "complete")
        return reply.value("x-sidegate-upstream")

    provider.on(case, *[SAYS_NO["503"]] * 3, held, answer_by_default)
    for _ in range(3):
        assert await ask() == "second"
    opened = time.monotonic()
    assert await asyncio.gather(*[ask() for _ in range(8)]) == ["second"] * 8
    if time.monotonic() - opened < OPEN_S * 0.8:
        assert len(provider.seen(case)) == 3
    await asyncio.sleep(OPEN_S * 1.3)
    asking = [asyncio.create_task(ask()) for _ in range(8)]
    done, probing = await asyncio.wait(asking, timeout=0.6)
    assert [task.result() for task in done] == ["second"] * 7
    gate.open()
    assert [await task for task in probing] == ["first"]
    assert len(provider.seen(case)) == 4
    assert await ask() == "first"
