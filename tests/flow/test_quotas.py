"""Daily quotas as callers meet them: several proxies on one database, parallel callers, aborts, crashes and outages."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import openai
import pytest

from bench.fleet import set_limits
from tests.conftest import Postgres
from tests.fakes.answers import Answer
from tests.fakes.fixtures import Launch
from tests.fakes.judge import assert_error, eventually
from tests.fakes.provider import Call, Provider, give
from tests.fakes.sidegate import ADMIN_KEY, Sidegate
from tests.fakes.steps import SILENCE, chunks, script, sse_head, whole
from tests.fakes.wire import Reply, Wire, exchange, post, request

IN, OUT = 12, 18
EACH = IN + OUT
"""What the provider bills for any request here."""
_WAITING = """
SELECT count(*) FROM (SELECT pg_stat_clear_snapshot()) AS anew, pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM request_traces%'
"""
MOST = 100
"""More than the bound of a request with `max_tokens` 18."""


@pytest.fixture(scope="module")
def own_database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    url = postgres.create_database(migrated_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def fleet(
    provider: Provider, own_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sidegate, ...]]:
    """Four replicas on one database. A start costs more than most tests here, so they share them, not their callers."""
    running: list[Sidegate] = []
    try:
        for _ in range(4):
            running.append(Sidegate(tmp_path_factory.mktemp("replica"), provider.base_url, own_database))
            running[-1].start()
        yield tuple(one.reach_database() for one in running)
    finally:
        for one in running:
            one.stop()


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def answer(usage: bool) -> bytes:
    document: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a" * OUT}, "finish_reason": "stop"}],
    }
    if usage:
        document["usage"] = {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": EACH}
    return json.dumps(document).encode()


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def events(usage: bool) -> list[bytes]:
    pieces = [event({"content": "a"}) for _ in range(OUT)] + [event({}, "stop")]
    if usage:
        figures = {"prompt_tokens": IN, "completion_tokens": OUT, "total_tokens": EACH}
        pieces.append(b"data: " + json.dumps({"choices": [], "usage": figures}).encode() + b"\n\n")
    return [*pieces, b"data: [DONE]\n\n"]


def serving(pause_s: float = 0.0, usage: bool = True) -> Any:
    """A provider that bills every request alike, streamed or not."""

    async def serve(call: Call) -> None:
        is_stream = json.loads(await call.body()).get("stream", False)
        pieces = events(usage) if is_stream else [answer(usage)]
        kind = "text/event-stream" if is_stream else "application/json"
        await asyncio.sleep(0 if is_stream else pause_s)
        filled = Answer(pieces, content_type=kind, stream=is_stream, input_tokens=IN, output_tokens=OUT)
        await give(call, filled, pause_s / 20 if is_stream else 0.0)

    return serve


async def api(proxy: Sidegate, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
    head = (f"Authorization: Bearer {ADMIN_KEY}", "Content-Type: application/json")
    body = None if document is None else json.dumps(document).encode()
    reply = await exchange(proxy.address, request(method, path, *head, body=body))
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


async def set_limit(proxy: Sidegate, user: str, tokens: int) -> None:
    await api(
        proxy,
        "POST",
        "/v1/quota/update",
        {"userId": user, "projectId": "default-project", "maxTokensDaily": tokens},
    )


async def standing(proxy: Sidegate, user: str) -> dict[str, Any]:
    found = await api(proxy, "GET", f"/v1/quota/status?userId={user}&projectId=default-project")
    assert isinstance(found, dict)
    return found


def asking(user: str, body: bytes, case: str) -> bytes:
    return post("/v1/chat/completions", body, f"X-Sidegate-User: {user}", case=case)


async def ask(proxy: Sidegate, user: str, case: str, body: bytes) -> Reply:
    return await exchange(proxy.address, asking(user, body, case), timeout_s=40)


def denials(proxy: Sidegate, reason: str) -> float:
    return proxy.metrics().get(f'sidegate_quota_denials_total{{reason="{reason}"}}', 0)


def billed(provider: Provider, case: str) -> int:
    return sum(entry.input_tokens + entry.output_tokens for entry in provider.billed(case))


async def until_settled(*proxies: Sidegate) -> None:
    for proxy in proxies:
        await asyncio.to_thread(eventually, lambda proxy=proxy: proxy.metrics()["sidegate_journal_records"] == 0, 10)


async def charged(proxy: Sidegate, user: str) -> int:
    """Sum of what the traces say."""
    total, cursor = 0, ""
    while True:
        page = await api(proxy, "GET", f"/v1/traces?userId={user}&limit=100{cursor}")
        total += sum(trace["inputTokens"] + trace["outputTokens"] for trace in page["traces"])
        if not page["nextCursor"]:
            return total
        cursor = f"&cursor={page['nextCursor']}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("most", [18, 60, None], ids=["exact", "roomy", "open"])
async def test_four_proxies_when_asked_at_once_then_exactly_what_fits_is_served(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str, stream: bool, most: int | None
) -> None:
    """A limit of 50 requests and the bound of one more."""
    proxies, user = fleet, f"crowd-{case}"
    provider.on(case, serving(0.05))
    limit = 50 * EACH + MOST
    await set_limit(proxies[0], user, limit)
    body = chat(stream=stream, **({} if most is None else {"max_tokens": most}))
    replies = await asyncio.gather(*(ask(proxies[i % 4], user, case, body) for i in range(200)))
    statuses = Counter(reply.status for reply in replies)
    await until_settled(*proxies)
    assert statuses[200] + statuses[429] == 200, statuses
    assert billed(provider, case) <= limit
    assert statuses[200] >= 50, statuses
    found = await standing(proxies[1], user)
    assert found["currentTokensToday"] == billed(provider, case) == await charged(proxies[2], user)


async def test_quota_when_a_caller_is_new_then_it_gets_the_defaults(
    provider: Provider, own_database: str, launch: Launch, case: str
) -> None:
    proxy = launch(
        database=own_database, DEFAULT_QUOTA_TOKENS_DAILY="200", DEFAULT_QUOTA_COST_DAILY="2.5"
    ).reach_database()
    provider.on(case, serving())
    assert not (await standing(proxy, "new"))["exists"]
    replies = [await ask(proxy, "new", case, chat(max_tokens=18)) for _ in range(8)]
    statuses = [reply.status for reply in replies]
    assert statuses == sorted(statuses)
    assert billed(provider, case) <= 200
    error = assert_error(replies[-1], 429, "insufficient_quota")
    assert (error["type"], error["param"]) == ("insufficient_quota", None)
    assert error["details"]["reason"] == "tokens"
    assert error["resetAt"].endswith("Z")
    assert replies[-1].value("x-should-retry") == "false"
    assert 0 < int(replies[-1].value("Retry-After") or 0) <= 86_400
    assert replies[0].value("x-ratelimit-limit-tokens") == "200"
    assert replies[0].value("x-ratelimit-limit-cost") == "2.5"
    await until_settled(proxy)
    found = await standing(proxy, "new")
    assert (found["exists"], found["maxTokensDaily"], found["maxCostDaily"]) == (True, 200, 2.5)
    assert found["currentTokensToday"] == billed(provider, case)


async def test_quota_when_the_api_waits_for_postgresql_then_a_new_caller_is_served_all_the_same(
    provider: Provider, fleet: tuple[Sidegate, ...], own_database: str, case: str
) -> None:
    """Queries of the API must not take every connection: without one, the quota takes PostgreSQL for away."""
    proxy, user = fleet[0], f"api-{case}"
    provider.on(case, serving())
    listing = request("GET", "/v1/traces", f"Authorization: Bearer {ADMIN_KEY}")
    connection = await asyncpg.connect(own_database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE request_traces IN ACCESS EXCLUSIVE MODE")
            listings = [asyncio.create_task(exchange(proxy.address, listing, timeout_s=40)) for _ in range(12)]
            while await connection.fetchval(_WAITING) < 2:
                await asyncio.sleep(0.01)
            reply = await ask(proxy, user, case, chat(max_tokens=18))
    finally:
        await connection.close()
    assert reply.status == 200, reply.body
    assert proxy.metrics()["sidegate_quota_degraded"] == 0
    assert {(await one).status for one in listings} <= {200, 503}


async def test_usage_when_it_is_missing_then_the_charge_is_an_upper_bound(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy = fleet[0]
    provider.on(case, serving(usage=False))
    for body in (chat(max_tokens=40), chat(stream=True, max_tokens=40)):
        reply = await ask(proxy, "silent", case, body)
        trace = proxy.trace(reply.trace_id)
        assert trace["usageSource"] == "estimated"
        assert EACH <= trace["inputTokens"] + trace["outputTokens"] <= 200
    await until_settled(proxy)
    assert (await standing(proxy, "silent"))["currentTokensToday"] >= billed(provider, case)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/rerank"])
async def test_operation_when_it_is_not_openais_then_its_usage_is_limited_too(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str, path: str
) -> None:
    proxy, user = fleet[0], case[-40:]
    figures = {"type": "message", "content": [], "usage": {"input_tokens": 200, "output_tokens": 20}}
    provider.on(case, script(whole(json.dumps(figures).encode())))
    await set_limit(proxy, user, 450)
    body = b'{"model":"gpt-4o-mini","max_tokens":20,"messages":[{"role":"user","content":"hi"}]}'
    asked = post(path, body, f"X-Sidegate-User: {user}", case=case)
    statuses = []
    for _ in range(4):
        statuses.append((await exchange(proxy.address, asked, timeout_s=40)).status)
        await until_settled(proxy)
    served = statuses.count(200)
    assert statuses == [200] * served + [429] * (4 - served) and 1 <= served < 4
    assert (await standing(proxy, user))["currentTokensToday"] == served * 220 == await charged(proxy, user)


async def test_unknown_operation_when_its_process_dies_then_the_accounts_still_agree(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy, other, *_ = fleet
    provider.on(case, script(SILENCE))
    async with await Wire.open(proxy.address) as wire:
        await wire.send(post("/v1/rerank", b"{}", "X-Sidegate-User: unknown-victim", case=case))
        await asyncio.to_thread(eventually, lambda: len(provider.seen(case)) == 1)
        proxy.kill9()
    proxy.restart().reach_database()
    await until_settled(proxy)
    assert (await standing(other, "unknown-victim"))["currentTokensToday"] == await charged(other, "unknown-victim")


async def test_stream_when_the_client_leaves_then_the_charge_covers_what_was_generated(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy = fleet[0]
    provider.on(case, serving(2.0))
    wire = await Wire.open(proxy.address)
    async with wire:
        await wire.send(asking("leaver", chat(stream=True, max_tokens=18), case))
        reply = await wire.head()
        await wire.until(b'"a"')
    trace = proxy.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("client_abort", "estimated")
    await until_settled(proxy)
    found = await standing(proxy, "leaver")
    assert found["currentTokensToday"] == trace["inputTokens"] + trace["outputTokens"] >= EACH


async def test_stream_when_it_tells_figures_on_the_way_and_the_client_leaves_then_they_are_not_all(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy, words = fleet[0], 12
    early = event({"content": "a"}).replace(
        b'"choices"', b'"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "choices"'
    )
    pieces = [early, *[event({"content": "b"})] * (words - 2), event({"content": "z"})]
    provider.on(case, script(sse_head(), chunks(pieces), SILENCE))
    async with await Wire.open(proxy.address) as wire:
        await wire.send(asking("early", chat(stream=True, max_tokens=18), case))
        reply = await wire.head()
        await wire.until(b'"z"')
    trace = proxy.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("client_abort", "estimated")
    assert trace["outputTokens"] >= words


async def test_kill_when_requests_run_then_they_are_charged_what_they_had_reserved(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy, other, *_ = fleet
    provider.on(case, serving(30.0))
    wires = [await Wire.open(proxy.address) for _ in range(5)]
    for wire in wires:
        await wire.send(asking("victim", chat(max_tokens=18), case))
    await asyncio.to_thread(eventually, lambda: len(provider.billed(case)) == 0 and len(provider.seen(case)) == 5)
    proxy.kill9()
    proxy.restart().reach_database()
    await until_settled(proxy)
    found = await standing(other, "victim")
    assert (found["heldTokens"], found["burnedTokens"]) == (0, 0)
    assert found["currentTokensToday"] == await charged(other, "victim") >= 5 * EACH
    for wire in wires:
        wire.writer.close()


async def test_stream_when_the_quota_runs_out_then_it_ends_as_at_its_maximum(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy = fleet[0]

    async def endless(call: Call) -> None:
        await call.body()
        await call.send(sse_head())
        while True:
            piece = event({"content": "word "})
            await call.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await asyncio.sleep(0.001)

    provider.on(case, endless)
    await set_limit(proxy, "talker", 1000)
    reply = await ask(proxy, "talker", case, chat(stream=True))
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert json.loads(reply.body.split(b"\n\n")[-3][6:])["choices"][0]["finish_reason"] == "length"
    trace = proxy.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("quota_cut", "estimated")
    await until_settled(proxy)
    found = await standing(proxy, "talker")
    assert reply.body.count(b"word ") <= found["currentTokensToday"] <= 1000


async def test_sdk_when_the_day_is_used_up_then_it_raises_at_once(
    provider: Provider, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy = fleet[0]
    before = denials(proxy, "tokens")
    await set_limit(proxy, "poor", 0)
    headers = {"X-Sidegate-User": "poor", "x-case-id": case}
    async with openai.AsyncOpenAI(api_key="k", base_url=proxy.base_url, default_headers=headers) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "insufficient_quota"
    assert provider.seen(case) == []
    assert denials(proxy, "tokens") == before + 1


async def test_sdk_when_a_short_window_is_full_then_it_waits_as_told_and_is_served(
    provider: Provider, own_database: str, fleet: tuple[Sidegate, ...], case: str
) -> None:
    proxy = fleet[0]
    connection = await asyncpg.connect(own_database)
    await set_limits(connection, ("hasty", "busy"), rules={"requestsPerMinute": 30})
    await connection.close()
    headers = {"X-Sidegate-User": "hasty", "X-Sidegate-Project": "busy", "x-case-id": case}
    async with openai.AsyncOpenAI(api_key="k", base_url=proxy.base_url, default_headers=headers) as client:
        asking = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
        for _ in range(31):
            await client.chat.completions.create(**asking)
        while not denials(proxy, "requests"):
            await client.chat.completions.create(**asking)  # a slow machine lets the window refill
        refused = client.with_options(max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            for _ in range(100):
                await refused.chat.completions.create(**asking)
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_exceeded")
    assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 2
