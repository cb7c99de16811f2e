"""The application: the official SDK is content with every endpoint; the program starts and stops."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest

from proxy.demo import DemoUpstream
from proxy.demo.reply import NOTICE

MESSAGES = [{"role": "user", "content": "Hello, who are you?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}


@pytest.fixture
async def sdk(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


async def test_chat_when_asked_then_answers_with_usage_and_request_id(sdk: openai.AsyncOpenAI) -> None:
    raw = await sdk.chat.completions.with_raw_response.create(model="any-name", messages=MESSAGES)
    answer = raw.parse()
    assert answer.model == "any-name"
    assert (answer.choices[0].message.content or "").startswith(NOTICE)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["openai-processing-ms"]) >= 1


@pytest.mark.parametrize("include_usage", [True, False])
async def test_chat_when_streamed_then_deltas_add_up(sdk: openai.AsyncOpenAI, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    stream = await sdk.chat.completions.create(
        model="demo-small!delay_ms=0",
        messages=MESSAGES,
        stream=True,
        n=2,
        **options,
    )
    chunks = [chunk async for chunk in stream]
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts[0].startswith(NOTICE)
    assert texts[1].endswith("(Choice 2.)")
    assert (chunks[-1].usage is not None) == include_usage


async def test_chat_when_a_tool_is_required_then_streamed_call_parses(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="demo-small",
        messages=MESSAGES,
        tools=[TOOL],
        tool_choice="required",
    ) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("get_weather", '{"city":"demo"}')
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("asks", ["Hello", "Use the tool"])
async def test_responses_when_streamed_then_the_sdk_rebuilds_the_object(sdk: openai.AsyncOpenAI, asks: str) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
    async with sdk.responses.stream(model="demo-small!delay_ms=0", input=asks, tools=[tool]) as stream:
        answer = await stream.get_final_response()
    whole = await sdk.responses.create(model="demo-small", input=asks, tools=[tool])
    assert [item.type for item in answer.output] == [item.type for item in whole.output]
    assert answer.output_text == whole.output_text
    assert answer.usage == whole.usage


async def test_other_endpoints_when_asked_then_the_sdk_is_content(sdk: openai.AsyncOpenAI) -> None:
    text = await sdk.completions.create(model="demo-small", prompt=["a", "b"], max_tokens=4)
    assert text.choices[0].finish_reason == "length"
    embedded = await sdk.embeddings.create(model="demo-embedding", input=["a", "b"], dimensions=16)
    assert [len(item.embedding) for item in embedded.data] == [16, 16]
    assert not (await sdk.moderations.create(input="x", model="omni-moderation-latest")).results[0].flagged
    assert "demo-small" in [model.id async for model in sdk.models.list()]
    assert (await sdk.models.retrieve("any/name")).id == "any/name"


async def test_unknown_path_when_asked_then_404_without_the_path(base_url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{base_url}/nothing?secret=1") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "unknown_url"
        assert "secret" not in await answer.text()


async def test_ledger_when_requests_ended_then_marker_and_totals(base_url: str, http: aiohttp.ClientSession) -> None:
    wanted = {"model": "demo-small", "messages": MESSAGES}
    headers = {"x-demo-marker": "case-1"}
    async with http.post(f"{base_url}/chat/completions", json=wanted, headers=headers) as answer:
        usage = (await answer.json())["usage"]
    async with http.get(base_url.replace("/v1", "/demo/ledger")) as answer:
        ledger = await answer.json()
    assert ledger["requests"][0]["marker"] == "case-1"
    assert ledger["totals"] == {
        "requests": 1,
        "completed": 1,
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
    }


async def test_upstream_when_stopped_twice_then_quiet_and_gone(http: aiohttp.ClientSession) -> None:
    upstream = DemoUpstream()
    base_url = await upstream.start()
    await upstream.stop()
    await upstream.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"{base_url}/models")


async def test_program_when_terminated_then_told_its_address_and_exits_0() -> None:
    code = "import sys; from proxy.demo import run; sys.exit(run('127.0.0.1', 0))"
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    assert program.stderr is not None
    line = (await program.stderr.readline()).decode()
    address = line.split("http://")[1].split("/v1")[0]
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}/v1/models") as answer:
        assert answer.status == 200
    program.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(program.wait(), 20) == 0
