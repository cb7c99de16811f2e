"""The asynchronous SDK: many streams at once, abandoned ones, cancelled ones, and websockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import SILENCE, chunk, script, sse_head
from tests.fakes.websocket import CLOSE, TEXT, Frame, Socket, socket_script

MESSAGES: Any = [{"role": "user", "content": "hi"}]
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


@pytest.fixture
async def client(sidegate: Sidegate, case: str) -> AsyncIterator[AsyncOpenAI]:
    headers = {"x-case-id": case}
    async with AsyncOpenAI(base_url=sidegate.base_url, api_key="sk-c", default_headers=headers) as opened:
        yield opened


async def text_of(client: AsyncOpenAI, case: str) -> tuple[str, str]:
    headers = {"x-case-id": case}
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_headers=headers)
    parts = [part async for part in stream]
    return parts[0].id, "".join(part.choices[0].delta.content or "" for part in parts)


async def test_streams_when_forty_run_at_once_then_each_is_its_own(
    provider: Provider, client: AsyncOpenAI, case: str
) -> None:
    names = [f"{case}-{number}" for number in range(40)]
    found = await asyncio.gather(*(text_of(client, name) for name in names))
    assert [id for id, _ in found] == [f"chatcmpl-{name}" for name in names]
    assert len({text for _, text in found}) == 1


async def test_stream_when_left_early_then_the_provider_is_stopped(
    provider: Provider, client: AsyncOpenAI, case: str
) -> None:
    provider.on(case, script(sse_head(), chunk(EVENT), SILENCE))
    async with await client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        async for _ in stream:
            break
    await client.close()
    eventually(lambda: provider.seen(case)[0].closed_at, 2)


async def test_call_when_its_task_is_cancelled_then_the_provider_is_stopped(
    provider: Provider, client: AsyncOpenAI, case: str
) -> None:
    provider.on(case, script(SILENCE))
    task = asyncio.create_task(client.chat.completions.create(model="m", messages=MESSAGES))
    await asyncio.to_thread(eventually, lambda: provider.seen(case))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    eventually(lambda: provider.seen(case)[0].closed_at, 2)


async def test_realtime_when_connected_through_the_sdk_then_events_pass_both_ways(
    provider: Provider, client: AsyncOpenAI, case: str
) -> None:
    created = b'{"type":"session.created","event_id":"e1","session":{"type":"realtime","model":"gpt-realtime"}}'
    received: list[bytes] = []

    async def talk(socket: Socket) -> None:
        await socket.send(Frame(TEXT, created))
        while (frame := await socket.receive()).opcode != CLOSE:
            if frame.opcode == TEXT:
                received.append(frame.data)
                await socket.send(Frame(TEXT, b'{"type":"response.done","event_id":"e2","response":{"id":"r"}}'))
        await socket.send(frame)

    provider.on(case, socket_script(talk))
    async with client.realtime.connect(model="gpt-realtime", extra_headers={"x-case-id": case}) as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.response.create()
        assert (await connection.recv()).type == "response.done"
    assert [json.loads(data) for data in received] == [{"type": "response.create"}]
    assert provider.seen(case)[0].target == "/v1/realtime?model=gpt-realtime"


async def test_uploads_when_large_and_several_then_each_arrives_whole(
    provider: Provider, client: AsyncOpenAI, case: str
) -> None:
    async def upload(number: int) -> None:
        headers = {"x-case-id": f"{case}-{number}"}
        await client.files.create(
            file=(f"{number}.bin", bytes([number]) * 4_000_000), purpose="batch", extra_headers=headers
        )

    await asyncio.gather(*(upload(number) for number in range(6)))
    for number in range(6):
        (seen,) = provider.seen(f"{case}-{number}")
        assert seen.body.count(bytes([number]) * 4_000_000) == 1
