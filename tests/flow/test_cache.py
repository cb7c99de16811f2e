"""Answers that are kept, from outside: given again to the same request of the same project, and to nobody else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import openai
import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, chunk, script, sse_head, whole
from tests.fakes.wire import Reply, exchange, post
from tests.policy.secrets import MEDIUM

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
SAME = b'{ "messages" : [{"content":"h\\u0065llo", "role":"user"}],\n "model":"gpt-4o-mini" }'
STREAM = CHAT[:-1] + b',"stream":true}'
WITH_USAGE = STREAM[:-1] + b',"stream_options":{"include_usage":true}}'
PATH = "/v1/chat/completions"
ENABLED = '{"features": {"enableCache": true}}'


@pytest.fixture(scope="module")
def caching(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    asyncio.run(_enable(session_database_url))
    directory = tmp_path_factory.mktemp("caching")
    running = Sidegate(directory, provider.base_url, session_database_url, {"SIDEGATE__CACHE__SHARED": "true"}).start()
    yield running
    running.stop()


async def _enable(url: str) -> None:
    connection = await asyncpg.connect(url)
    for name in ("cached", "other"):
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name, config) VALUES ($1, 'default-org', $1, $2)"
            " ON CONFLICT (id) DO UPDATE SET config = excluded.config",
            name,
            ENABLED,
        )
    await connection.close()


async def ask(proxy: Sidegate, body: bytes, case: str, *headers: str, project: str = "cached") -> Reply:
    return await exchange(proxy.address, post(PATH, body, f"x-sidegate-project: {project}", *headers, case=case))


def uses(*replies: Reply) -> list[str | None]:
    return [reply.value("x-sidegate-cache") for reply in replies]


async def test_same_request_when_asked_again_then_the_answer_costs_nothing(
    provider: Provider, caching: Sidegate, case: str
) -> None:
    first, again = await ask(caching, CHAT, case), await ask(caching, SAME, case, "x-sidegate-user: bob")
    assert uses(first, again) == ["miss", "hit"]
    assert (again.status, again.body) == (200, first.body)
    assert again.value("content-type") == first.value("content-type")
    assert int(again.value("age") or "x") >= 0 and first.value("age") is None
    assert again.value("x-request-id") == again.trace_id
    assert len(provider.billed(case)) == 1
    paid, free = caching.trace(first.trace_id), caching.trace(again.trace_id)
    assert (paid["routingDecisions"][0]["cache"], paid["totalCost"] > 0) == ("miss", True)
    assert (free["routingDecisions"][0]["cache"], free["totalCost"], free["llmCalls"]) == ("hit", 0, [])
    assert (free["outcome"], free["status"], free["inputTokens"], free["outputTokens"]) == ("ok", 200, 0, 0)
    assert (free["responseModel"], free["responseBytes"]) == (paid["responseModel"], len(first.body))
    assert free["quota"] is None


async def test_stream_when_asked_again_then_the_same_events(provider: Provider, caching: Sidegate, case: str) -> None:
    first, again = await ask(caching, STREAM, case), await ask(caching, STREAM, case)
    told, plain = await ask(caching, WITH_USAGE, case), await ask(caching, STREAM, case)
    assert uses(first, again, told, plain) == ["miss", "hit", "hit", "hit"]
    assert again.body == first.body == plain.body
    assert again.value("content-type") == first.value("content-type")
    paid, free = caching.trace(first.trace_id), caching.trace(again.trace_id)
    assert (free["outcome"], free["responseBytes"], free["totalCost"]) == ("ok", len(first.body), 0)
    assert (free["responseModel"], free["llmCalls"]) == (paid["responseModel"], [])
    assert b'"usage"' not in first.body
    (billed,) = provider.billed(case)
    assert f'"completion_tokens":{billed.output_tokens}'.encode() in told.body.replace(b" ", b"")
    assert (await ask(caching, CHAT, case)).value("x-sidegate-cache") == "miss"


NOT_GIVEN = {
    "another project": ((), {"project": "other"}, "miss"),
    "another header for the provider": (("openai-beta: x",), {}, "miss"),
    "no-cache": (("cache-control: no-cache",), {}, "bypass"),
    "no-store": (("cache-control: no-store",), {}, "bypass"),
    "a project without a cache": ((), {"project": "plain"}, None),
}


@pytest.mark.parametrize(("headers", "more", "use"), NOT_GIVEN.values(), ids=NOT_GIVEN.keys())
async def test_answer_when_the_request_is_not_the_same_or_does_not_want_it_then_the_provider_is_asked(
    provider: Provider, caching: Sidegate, case: str, headers: tuple[str, ...], more: dict[str, Any], use: str | None
) -> None:
    await ask(caching, CHAT, case)
    other = await ask(caching, CHAT, case, *headers, **more)
    assert (other.value("x-sidegate-cache"), len(provider.billed(case))) == (use, 2)


CHOICE = '{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"%s"}'
ANSWER = '{"object":"chat.completion","model":"gpt-4o-mini","choices":[' + CHOICE + "]}"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
NOT_KEPT = {
    "cut by length": (CHAT, (whole((ANSWER % ("x", "length")).encode()),)),
    "filtered": (CHAT, (whole((ANSWER % ("x", "content_filter")).encode()),)),
    "a secret": (CHAT, (whole((ANSWER % (MEDIUM, "stop")).encode()),)),
    "an error": (CHAT, (whole(b'{"error":{}}', status="400 Bad Request"),)),
    "cut stream": (STREAM, (sse_head(), chunk(EVENT), CLOSE)),
    "error in a stream": (STREAM, (sse_head(), chunk(EVENT + b'data: {"error":{"code":"x"}}\n\n'), LAST_CHUNK)),
}


@pytest.mark.parametrize(("body", "steps"), NOT_KEPT.values(), ids=NOT_KEPT.keys())
async def test_answer_when_it_is_not_a_good_one_then_it_is_not_kept(
    provider: Provider, caching: Sidegate, case: str, body: bytes, steps: Any
) -> None:
    provider.on(case, script(*steps))
    first, again = await ask(caching, body, case), await ask(caching, body, case)
    assert uses(first, again) == ["miss", "miss"]


async def test_answer_when_the_client_leaves_then_it_is_not_kept(
    provider: Provider, caching: Sidegate, case: str
) -> None:
    gate = provider.gate()
    provider.on(case, script(sse_head(), chunk(EVENT), gate, chunk(EVENT + b"data: [DONE]\n\n"), LAST_CHUNK))
    reader, writer = await asyncio.open_connection(*caching.address)
    writer.write(post(PATH, STREAM, "x-sidegate-project: cached", case=case))
    await reader.readuntil(b'"x"')
    writer.close()
    await asyncio.to_thread(eventually, lambda: provider.seen(case)[0].closed_at is not None)
    gate.open()
    assert (await ask(caching, STREAM, case)).value("x-sidegate-cache") == "miss"


@pytest.fixture
async def sdk(caching: Sidegate, case: str) -> AsyncIterator[openai.AsyncOpenAI]:
    headers = {"x-sidegate-project": "cached", "x-case-id": case}
    async with openai.AsyncOpenAI(base_url=caching.base_url, api_key="k", default_headers=headers) as client:
        yield client


async def test_sdk_when_a_whole_answer_is_kept_then_its_stream_says_the_same(sdk: openai.AsyncOpenAI) -> None:
    question: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a stream of a whole"}]}
    said = await sdk.chat.completions.create(**question)
    async with sdk.chat.completions.stream(**question, stream_options={"include_usage": True}) as stream:
        kept = await stream.get_final_completion()
    assert kept.choices[0].message.content == said.choices[0].message.content
    assert kept.choices[0].finish_reason == said.choices[0].finish_reason
    assert (kept.id, kept.model, kept.usage, kept.created) == (said.id, said.model, said.usage, said.created)
    events = await sdk.chat.completions.with_raw_response.create(**question, stream=True)
    assert events.headers["x-sidegate-cache"] == "hit"
    assert [chunk.usage async for chunk in events.parse()][-1] is None


async def test_answer_when_replicas_share_then_another_one_gives_it(
    provider: Provider, caching: Sidegate, launch: Launch, session_database_url: str, case: str
) -> None:
    first = await ask(caching, CHAT, case)
    other = await asyncio.to_thread(launch, SIDEGATE__CACHE__SHARED="true")
    again = await ask(other, CHAT, case)
    assert (again.value("x-sidegate-cache"), again.body) == ("hit", first.body)
    assert len(provider.billed(case)) == 1
    connection = await asyncpg.connect(session_database_url)
    rows = await connection.fetch("SELECT project_id, body FROM cached_answers")
    await connection.close()
    assert {row["project_id"] for row in rows} <= {"cached", "other"}
    assert first.body in [row["body"] for row in rows]
    assert not [row for row in rows if MEDIUM.encode() in row["body"]]


async def test_sums_when_answers_came_from_the_cache_then_they_are_counted_as_such(
    caching: Sidegate, case: str
) -> None:
    last = [await ask(caching, CHAT, case, f"x-sidegate-user: {case}") for _ in range(3)][-1]
    caching.trace(last.trace_id)
    users = caching.api("/v1/analytics/users?projectId=cached&limit=100")[1]["users"]
    (mine,) = [user for user in users if user["userId"] == case]
    assert (mine["requests"], mine["calls"], mine["cacheHits"]) == (3, 1, 2)
    metrics = caching.metrics()
    assert metrics['sidegate_cache_requests_total{result="hit"}'] >= 2
    assert metrics["sidegate_cache_bytes"] > 0
