"""Websockets pass frame by frame: text, binary, control frames, close codes, and a refused handshake as it is."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import PROVIDER_KEY, Sidegate
from tests.fakes.steps import script, whole
from tests.fakes.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    close_frame,
    connect,
    socket_script,
)
from tests.fakes.wire import Cut, exchange, request

TARGET = "/v1/realtime?model=gpt-realtime&x=%20"


async def echo(socket: Socket) -> None:
    """Send back every frame but the last, which is a close."""
    while (frame := await socket.receive()).opcode != CLOSE:
        await socket.send(frame)
    await socket.send(frame)


async def skipping_control(receive: Callable[[], Awaitable[Frame]]) -> Frame:
    while (frame := await receive()).opcode in (PING, PONG):
        pass
    return frame


@pytest.mark.parametrize("target", [TARGET, "/v1/responses"])
async def test_messages_when_sent_then_they_come_back_unchanged(
    provider: Provider, sidegate: Sidegate, case: str, target: str
) -> None:
    provider.on(case, socket_script(echo))
    messages = [
        Frame(TEXT, '{"type":"session.update","text":"ä 👋"}'.encode()),
        Frame(BINARY, bytes(range(256))),
        Frame(TEXT, b""),
        Frame(BINARY, b"x" * 3_000_000),
        Frame(TEXT, b"y" * 70_000),
    ]
    async with asyncio.timeout(15):
        wire, reply, socket = await connect(sidegate.address, target, case=case)
        async with wire:
            assert reply.status == 101
            assert reply.trace_id
            for message in messages:
                await socket.send(message)
                assert await skipping_control(socket.receive) == message
            await socket.send(close_frame(1000, b"done"))
            assert await skipping_control(socket.receive) == close_frame(1000, b"done")
    (seen,) = provider.seen(case)
    assert seen.target == target
    assert seen.value(b"authorization") == f"Bearer {PROVIDER_KEY}".encode()
    assert seen.values(b"sec-websocket-extensions") == []


async def test_message_when_fragmented_then_it_arrives_whole(provider: Provider, sidegate: Sidegate, case: str) -> None:
    provider.on(case, socket_script(echo))
    async with asyncio.timeout(10):
        wire, _, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            await socket.send(Frame(TEXT, b"one ", final=False))
            await socket.send(Frame(0, b"two ", final=False))
            await socket.send(Frame(0, b"three"))
            whole_message = await skipping_control(socket.receive)
            while not whole_message.final:
                more = await skipping_control(socket.receive)
                whole_message = Frame(TEXT, whole_message.data + more.data, more.final)
    assert whole_message == Frame(TEXT, b"one two three")


async def test_ping_when_the_client_sends_one_then_its_pong_has_the_same_data(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    async def answer_pings(socket: Socket) -> None:
        while (frame := await socket.receive()).opcode != CLOSE:
            if frame.opcode == PING:
                await socket.send(Frame(PONG, frame.data))

    provider.on(case, socket_script(answer_pings))
    async with asyncio.timeout(10):
        wire, _, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            await socket.send(Frame(PING, b"are you there"))
            assert await socket.receive() == Frame(PONG, b"are you there")


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, b""), (1001, b"bye"), (1011, b"oops"), (3000, b"x"), (4999, "ä".encode())]
)
async def test_close_when_the_provider_sends_it_then_code_and_reason_arrive(
    provider: Provider, sidegate: Sidegate, case: str, code: int, reason: bytes
) -> None:
    async def leave(socket: Socket) -> None:
        await socket.send(Frame(TEXT, b"last words"))
        await socket.send(close_frame(code, reason))
        await skipping_control(socket.receive)

    provider.on(case, socket_script(leave))
    async with asyncio.timeout(10):
        wire, _, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            assert await skipping_control(socket.receive) == Frame(TEXT, b"last words")
            assert await skipping_control(socket.receive) == close_frame(code, reason)
            await socket.send(close_frame(code, reason))


@pytest.mark.parametrize(("code", "reason"), [(1000, b""), (3001, b"client is done")])
async def test_close_when_the_client_sends_it_then_the_provider_gets_it(
    provider: Provider, sidegate: Sidegate, case: str, code: int, reason: bytes
) -> None:
    received: list[Frame] = []

    async def listen(socket: Socket) -> None:
        received.append(await skipping_control(socket.receive))
        await socket.send(received[0])

    provider.on(case, socket_script(listen))
    async with asyncio.timeout(10):
        wire, reply, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            await socket.send(close_frame(code, reason))
            assert await skipping_control(socket.receive) == close_frame(code, reason)
            assert await wire.ended() == "cut"
    assert eventually(lambda: received) == [close_frame(code, reason)]
    assert sidegate.trace(reply.trace_id)["outcome"] == "ok"


async def test_close_when_the_client_sends_it_behind_a_message_then_the_answer_to_that_still_arrives_and_counts(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    usage = {"total_tokens": 12, "input_tokens": 5, "output_tokens": 7}
    done = json.dumps({"type": "response.done", "response": {"id": "resp_1", "usage": usage}}).encode()

    async def answer(socket: Socket) -> None:
        heard = [await skipping_control(socket.receive), await skipping_control(socket.receive)]
        assert heard == [Frame(TEXT, b"{}"), close_frame(1000, b"enough")]
        await socket.send(Frame(TEXT, done))
        await socket.send(close_frame(4001, b"all said"))

    provider.on(case, socket_script(answer))
    async with asyncio.timeout(10):
        wire, reply, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            await socket.send(Frame(TEXT, b"{}"))
            await socket.send(close_frame(1000, b"enough"))
            assert await skipping_control(socket.receive) == Frame(TEXT, done)
            assert await skipping_control(socket.receive) == close_frame(4001, b"all said")
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["inputTokens"], trace["outputTokens"]) == ("ok", 5, 7)


async def test_handshake_when_the_provider_redirects_then_the_client_decides(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(whole(b"", f"Location: {provider.base_url}/elsewhere", status="307 Temporary Redirect")))
    async with asyncio.timeout(10):
        wire, reply, _ = await connect(sidegate.address, TARGET, case=case)
        wire.reset()
    assert (reply.status, reply.value("location")) == (307, f"{provider.base_url}/elsewhere")
    assert [seen.target for seen in provider.seen(case)] == [TARGET]


async def test_handshake_when_the_provider_refuses_then_its_answer_arrives(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = (
        b'{"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}'
    )
    provider.on(case, script(whole(body, "x-request-id: req_ws", status="404 Not Found")))
    async with asyncio.timeout(10):
        wire, reply, _ = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            await wire.body(reply, "GET")
    assert (reply.status, reply.body, reply.value("x-request-id")) == (404, body, "req_ws")


async def test_handshake_when_protocols_are_offered_then_the_chosen_one_returns_and_keys_stay_behind(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, socket_script(echo, subprotocol="realtime"))
    offer = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-client, openai-beta.realtime-v1"
    async with asyncio.timeout(10):
        wire, reply, _ = await connect(sidegate.address, TARGET, offer, "OpenAI-Beta: realtime=v1", case=case)
        wire.reset()
    (seen,) = provider.seen(case)
    assert reply.value("sec-websocket-protocol") == "realtime"
    assert b"sk-client" not in seen.head
    offered = [name.strip() for name in (seen.value(b"sec-websocket-protocol") or b"").split(b",")]
    assert offered == [b"realtime", b"openai-beta.realtime-v1"]
    assert seen.value(b"openai-beta") == b"realtime=v1"


async def test_socket_when_the_client_resets_then_the_provider_is_told(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, socket_script(echo))
    async with asyncio.timeout(10):
        wire, reply, socket = await connect(sidegate.address, TARGET, case=case)
        await socket.send(Frame(TEXT, b"hello"))
        await skipping_control(socket.receive)
        wire.reset()
    (seen,) = provider.seen(case)
    # In a thread: the reset itself needs this event loop.
    await asyncio.to_thread(eventually, lambda: seen.closed_at, 2)
    assert sidegate.trace(reply.trace_id)["outcome"] == "client_abort"


@pytest.mark.parametrize("last", [None, close_frame(1006)], ids=["without a frame", "with the code of a lost one"])
async def test_socket_when_the_provider_vanishes_then_the_client_sees_no_clean_close(
    provider: Provider, sidegate: Sidegate, case: str, last: Frame | None
) -> None:
    async def vanish(socket: Socket) -> None:
        await socket.send(Frame(TEXT, b"hello"))
        if last is not None:
            await socket.send(last)

    provider.on(case, socket_script(vanish))
    async with asyncio.timeout(10):
        wire, _, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            assert await skipping_control(socket.receive) == Frame(TEXT, b"hello")
            try:
                frame = await skipping_control(socket.receive)
            except Cut:
                return
            assert frame.opcode == CLOSE
            assert frame.close_code not in (None, 1000)


async def test_usage_when_a_realtime_response_is_done_then_it_is_in_the_trace(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    usage = {"total_tokens": 40, "input_tokens": 30, "output_tokens": 10, "input_token_details": {"cached_tokens": 8}}

    async def respond(socket: Socket) -> None:
        for number in (1, 2):
            response = {"id": f"resp_{number}", "object": "realtime.response", "status": "completed", "usage": usage}
            await socket.send(Frame(TEXT, json.dumps({"type": "response.done", "response": response}).encode()))
        await socket.send(close_frame(1000))
        await skipping_control(socket.receive)

    provider.on(case, socket_script(respond))
    async with asyncio.timeout(10):
        wire, reply, socket = await connect(sidegate.address, TARGET, case=case)
        async with wire:
            while (await skipping_control(socket.receive)).opcode != CLOSE:
                pass
            await socket.send(close_frame(1000))
    trace = sidegate.trace(reply.trace_id)
    assert (trace["inputTokens"], trace["outputTokens"], trace["usageSource"]) == (60, 20, "provider")


async def _session(sidegate: Sidegate, provider: Provider, case: str, messages: list[dict], *more: str) -> str:
    """Have a session in which each message gets a response `<case>_<its place>`; return the id of its trace."""

    async def respond(socket: Socket) -> None:
        for number, _ in enumerate(messages, 1):
            await skipping_control(socket.receive)
            response = {"id": f"{case}_{number}", "object": "response", "status": "completed"}
            await socket.send(Frame(TEXT, json.dumps({"type": "response.completed", "response": response}).encode()))
        await skipping_control(socket.receive)
        await socket.send(close_frame(1000))

    provider.on(case, socket_script(respond))
    async with asyncio.timeout(10):
        wire, reply, socket = await connect(sidegate.address, "/v1/responses", *more, case=case)
        async with wire:
            for message in messages:
                await socket.send(Frame(TEXT, json.dumps({"type": "response.create", **message}).encode()))
                await skipping_control(socket.receive)
            await socket.send(close_frame(1000))
            await skipping_control(socket.receive)
    return reply.trace_id


async def test_session_of_responses_when_messages_name_a_conversation_then_it_belongs_to_that_and_what_follows_too(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    async def conversation(name: str, *messages: dict) -> str | None:
        trace_id = await _session(sidegate, provider, f"{case}{name}", list(messages))
        return sidegate.trace(trace_id)["conversationRef"]

    first, named = f"{case}a_1", f"conv_{case}"
    assert await conversation("a", {"input": "hi"}, {"input": "and", "previous_response_id": first}) == first
    assert await conversation("b", {"input": "on", "previous_response_id": f"{case}a_2"}) == first
    assert await conversation("c", {"conversation": {"id": named}}, {"conversation": "later"}) == named
    assert await conversation("d", {"response": {"previous_response_id": f"{case}c_2"}}) == named
    assert await conversation("e", {"input": "previous_response_id"}, {"conversation": None}) is None


async def test_upgrade_when_not_to_a_websocket_then_it_is_an_ordinary_request(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    reply = await exchange(
        sidegate.address, request("GET", "/v1/models", "Upgrade: h2c", "Connection: Upgrade", case=case)
    )
    assert reply.status == 200
    assert provider.seen(case)[0].values(b"upgrade") == []
