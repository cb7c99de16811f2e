import asyncio
import io
import json
import logging
import struct

import pytest

from proxy import logs
from proxy.errors import ClientDisconnected, InvalidRequest
from proxy.exchange import Delivery, Message
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.websocket import ClientWebsocket
from proxy.openai import error_body
from tests.ingress.wire import Client, request, serving, until

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", KEY)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame: masked, with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([0x80 * final | opcode]) + length + bytes(4) + payload


async def heard(client: Client) -> tuple[int, bytes]:
    first, size = await client.exactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", await client.exactly(2))
    return first & 0x0F, await client.exactly(size)


async def opened(client: Client, *lines: str) -> bytes:
    await client.say(request("/v1/realtime", *HANDSHAKE, *lines))
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    return head


def talking(script, *, subprotocol=None, headers=(), seen=None, max_bytes=1 << 16):
    """A handler that accepts and runs `script(websocket)`; what it raises goes to `seen`."""

    async def handler(asked):
        websocket = ClientWebsocket(asked, max_bytes, 10.0)
        downstream = HttpDownstream(asked, Delivery(), 5.0)
        try:
            await websocket.accept(subprotocol, headers)
            await script(websocket)
            await websocket.finish()
        except InvalidRequest as error:
            if websocket.response is None:
                status, fields, body = error_body.render(error)
                await downstream.send(status, "Bad Request", fields, body)
            if seen is not None:
                seen.append(error)
        except BaseException as error:
            if seen is not None:
                seen.append(error)
            raise
        return downstream

    return handler


async def echo(websocket):
    while (message := await websocket.receive()).kind != "close":
        await websocket.send(message)


async def test_messages_when_sent_then_they_come_back_unchanged():
    async with serving(talking(echo)) as server, server.client() as client:
        await opened(client)
        for opcode, payload in (
            (TEXT, "ä👋".encode()),
            (TEXT, b""),
            (BINARY, bytes(range(256))),
            (PING, b"p"),
            (PONG, b""),
            (TEXT, b"x" * 60_000),
        ):
            await client.say(frame(opcode, payload))
            assert await heard(client) == (opcode, payload)
        await client.say(frame(TEXT, b"one ", final=False), frame(PING, b"between"), frame(0, b"two"))
        assert [await heard(client), await heard(client)] == [(PING, b"between"), (TEXT, b"one two")]


@pytest.mark.parametrize("payload", [b"", struct.pack("!H", 1000), struct.pack("!H", 4999) + "ä".encode()])
async def test_close_when_the_client_sends_it_then_it_is_told_and_the_answer_ends_the_connection(payload):
    told = []

    async def script(websocket):
        told.append(await websocket.receive())
        await websocket.send(Message("text", "not yet"))
        await websocket.send(told[0])

    async with serving(talking(script)) as server, server.client() as client:
        await opened(client)
        await client.say(frame(CLOSE, payload))
        assert await heard(client) == (TEXT, b"not yet")
        assert await heard(client) == (CLOSE, payload)
        async with asyncio.timeout(2):  # nothing more is waited for
            assert await client.rest() == b""
    code = struct.unpack("!H", payload[:2])[0] if payload else None
    assert told == [Message("close", payload[2:].decode(), code)]


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (Message("close"), b""),
        (Message("close", "", 1005), b""),
        (Message("close", "bye", 1000), struct.pack("!H", 1000) + b"bye"),
        (Message("close", "ä", 4000), struct.pack("!H", 4000) + "ä".encode()),
    ],
)
async def test_close_when_the_provider_sent_it_then_the_client_gets_it_and_may_answer(message, payload):
    async def script(websocket):
        await websocket.send(Message("text", "last words"))
        await websocket.send(message)
        await websocket.send(message)

    async with serving(talking(script)) as server, server.client() as client:
        await opened(client)
        assert await heard(client) == (TEXT, b"last words")
        assert await heard(client) == (CLOSE, payload)
        await client.say(frame(CLOSE, payload))
        assert await client.rest() == b""


async def test_close_when_the_client_has_had_its_time_to_answer_then_no_more_is_waited_for(monkeypatch):
    monkeypatch.setattr("proxy.ingress.websocket._CLOSE_WAIT_S", 3600.0)

    async def script(websocket):
        await websocket.send(Message("close", "bye", 1000))
        websocket._closed_at -= 3600.0

    async with serving(talking(script)) as server, server.client() as client:
        await opened(client)
        assert await heard(client) == (CLOSE, struct.pack("!H", 1000) + b"bye")
        assert await client.rest() == b""


async def test_close_when_it_is_abrupt_then_the_connection_ends_without_a_frame():
    async def script(websocket):
        await websocket.send(Message("close", abrupt=True))

    async with serving(talking(script)) as server, server.client() as client:
        await opened(client)
        assert await client.rest() == b""


@pytest.mark.parametrize("leave", [Client.reset, lambda client: client.writer.close()], ids=["reset", "close"])
async def test_client_when_it_leaves_without_a_close_frame_then_the_session_is_cancelled(leave):
    seen = []
    async with serving(talking(echo, seen=seen)) as server, server.client() as client:
        await opened(client)
        leave(client)
        await until(lambda: seen)
    assert isinstance(seen[0], asyncio.CancelledError)


async def test_sending_when_the_client_is_gone_then_it_says_so():
    seen = []

    async def script(websocket):
        websocket._request.transport.close()
        await websocket.send(Message("text", "hello"))

    async with serving(talking(script, seen=seen)) as server, server.client() as client:
        await opened(client)
        await client.rest()
        await until(lambda: seen)
    assert isinstance(seen[0], ClientDisconnected)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(TEXT, b"x" * 2000), id="too large"),
        pytest.param(frame(3), id="unknown opcode"),
        pytest.param(frame(TEXT, b"\xff\xfe"), id="not UTF-8"),
        pytest.param(frame(CLOSE, b"\x00"), id="half a code"),
        pytest.param(b"\x81\x02ok", id="no mask"),
    ],
)
async def test_message_when_it_breaks_the_rules_then_the_session_ends_with_an_error(wire):
    seen = []
    async with serving(talking(echo, seen=seen, max_bytes=1000)) as server, server.client() as client:
        await opened(client)
        await client.say(wire)
        assert (await heard(client))[0] == CLOSE
        await client.say(frame(CLOSE))
        await until(lambda: seen)
    assert isinstance(seen[0], InvalidRequest)
    assert seen[0].code == "invalid_websocket_message"


async def test_handshake_when_accepted_then_the_providers_choice_and_headers_are_in_it():
    headers = ((b"x-sidegate-trace-id", b"t-1"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"))
    async with serving(talking(echo, subprotocol="realtime", headers=headers)) as server, server.client() as client:
        head = await opened(client, "Sec-WebSocket-Protocol: other", "Sec-WebSocket-Protocol: more, realtime")
    lines = head.lower().split(b"\r\n")
    for line in (b"sec-websocket-protocol: realtime", b"x-sidegate-trace-id: t-1", b"set-cookie: a", b"set-cookie: b"):
        assert line in lines
    assert b"extensions" not in head.lower()
    assert b"server:" not in head.lower()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(("Sec-WebSocket-Version: 13",), id="no key"),
        pytest.param(("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhl"), id="short key"),
        pytest.param((KEY,), id="no version"),
        pytest.param(("Sec-WebSocket-Version: 99", KEY), id="unknown version"),
    ],
)
async def test_handshake_when_not_valid_then_400_and_the_connection_serves_on(lines):
    async with serving(talking(echo)) as server, server.client() as client:
        for _ in range(2):
            await client.say(request("/v1/realtime", "Upgrade: websocket", "Connection: Upgrade", *lines))
            answer = await client.answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "invalid_handshake")


async def test_handshake_when_the_client_is_gone_then_it_says_so():
    seen = []

    async def handler(asked):
        asked.transport.close()
        try:
            await ClientWebsocket(asked, 1000, 10.0).accept(None, ())
        except BaseException as error:
            seen.append(error)
            raise

    async with serving(handler) as server, server.client() as client:
        await client.say(request("/v1/realtime", *HANDSHAKE))
        await until(lambda: seen)
    assert isinstance(seen[0], ClientDisconnected | asyncio.CancelledError)


async def test_handshake_when_a_key_is_among_the_subprotocols_then_no_log_has_it():
    root, raises = logging.getLogger(), logging.raiseExceptions
    before = (root.handlers[:], root.level)
    logs.configure("debug")
    stream = io.StringIO()
    root.handlers[0].setStream(stream)
    try:
        async with serving(talking(echo)) as server, server.client() as client:
            await opened(client, "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-canary")
    finally:
        root.handlers[:], root.level = before
        logging.raiseExceptions = raises
    assert "canary" not in stream.getvalue()
