"""Websockets to a provider that speaks RFC 6455 on a raw socket."""

import asyncio
import base64
import contextlib
import errno
import hashlib
import struct

import pytest

from proxy.config import schema
from proxy.errors import Overloaded, UpstreamFailed, UpstreamTimeout
from proxy.exchange import Message, UpstreamRequest
from proxy.upstream.session_setup import UNDER_WAY
from proxy.upstream.websocket import WebsocketClient, subprotocols
from tests.upstream.peer import Talk, peer, until

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


def _frame(opcode: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack("!H", size)
    return bytes([0x80 | opcode]) + length + payload


async def _heard(talk: Talk) -> tuple[int, bytes]:
    first, second = await talk.reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await talk.reader.readexactly(2))
    mask = await talk.reader.readexactly(4)
    data = await talk.reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


async def _accept(talk: Talk, extra: bytes = b"", connection: bytes = b"Upgrade") -> bytes:
    head = await talk.head()
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")).split(b": ")[1]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    await talk.say(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: " + connection + b"\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n" + extra + b"\r\n"
    )
    return head


@contextlib.asynccontextmanager
async def _client(url, max_message_bytes=1 << 20, **timeouts):
    client = WebsocketClient(
        schema.Upstream(base_url=url), schema.UpstreamClient(), schema.Timeouts(**timeouts), max_message_bytes, None
    )
    try:
        yield client
    finally:
        await client.close()


def _request(url, *headers, on_sent=None):
    return UpstreamRequest("GET", url + "/v1/realtime?model=a%2Fb", headers, None, on_sent=on_sent)


@contextlib.asynccontextmanager
async def _opened(after, extra=b"", headers=(), **options):
    """A websocket whose provider runs `after(talk)` behind the handshake; yields the reply and the heads heard."""
    heads = []

    async def script(talk: Talk) -> None:
        heads.append(await _accept(talk, extra))
        await after(talk)

    async with peer(script) as provider, _client(provider.url, **options) as client:
        reply = await client.connect(_request(provider.url, *headers))
        try:
            yield reply, heads
        finally:
            reply.close()
            reply.close()


async def test_handshake_when_over_then_the_task_that_made_it_does_not_keep_its_progress():
    """Progress, its timeout, the task and its context would else be a cycle, for the garbage collector."""
    async with _opened(lambda talk: talk.gone()):
        assert UNDER_WAY.get(None) is None


async def test_handshake_when_accepted_passes_fields_and_offers_without_credentials():
    calls = []
    headers = [
        (b"Authorization", b"Bearer ours"),
        (b"OpenAI-Beta", b"realtime=v1"),
        (b"Sec-WebSocket-Key", b"clients"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-secret"),
    ]

    async def idle(talk: Talk) -> None:
        await talk.gone()

    extra = b"Sec-WebSocket-Protocol: realtime\r\nX-Request-Id: r1\r\n"
    heads = []

    async def script(talk: Talk) -> None:
        heads.append(await _accept(talk, extra))
        await idle(talk)

    async with peer(script) as provider, _client(provider.url) as client:
        reply = await client.connect(_request(provider.url, *headers, on_sent=lambda: calls.append(1)))
        assert reply.status == 101
        assert reply.subprotocol == "realtime"
        assert (b"X-Request-Id", b"r1") in list(reply.headers)
        assert not [name for name, _ in reply.headers if name.lower().startswith(b"sec-websocket-")]
        reply.close()
        await until(lambda: not provider.open)
    head = heads[0]
    assert head.startswith(b"GET /v1/realtime?model=a%2Fb HTTP/1.1\r\n")
    assert b"Authorization: Bearer ours\r\n" in head and b"OpenAI-Beta: realtime=v1\r\n" in head
    assert b"secret" not in head and b"clients" not in head and b"deflate" not in head
    assert b"User-Agent" not in head and b"Accept" not in head
    assert calls == [1]


async def test_messages_when_sent_either_way_arrive_with_kind_and_bytes():
    got = []

    async def talk_back(talk: Talk) -> None:
        for opcode, data in [(_TEXT, "ü".encode()), (_BINARY, b"\xff"), (_PING, b"p"), (_PONG, b"q")]:
            await talk.say(_frame(opcode, data))
        for _ in range(4):
            got.append(await _heard(talk))
        await talk.gone()

    messages = [Message("text", "ü"), Message("binary", b"\xff"), Message("ping", b"p"), Message("pong", b"q")]
    async with _opened(talk_back) as (reply, _):
        assert [await reply.socket.receive() for _ in range(4)] == messages
        for message in messages:
            await reply.socket.send(message)
        await until(lambda: len(got) == 4)
    assert got == [(_TEXT, "ü".encode()), (_BINARY, b"\xff"), (_PING, b"p"), (_PONG, b"q")]


async def test_message_when_fragmented_around_a_ping_is_joined():
    async def fragments(talk: Talk) -> None:
        await talk.say(b"\x01\x02ab" + _frame(_PING) + b"\x80\x01c")
        await talk.gone()

    async with _opened(fragments) as (reply, _):
        assert await reply.socket.receive() == Message("ping", b"")
        assert await reply.socket.receive() == Message("text", "abc")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", Message("close", "")),
        (struct.pack("!H", 1000), Message("close", "", 1000)),
        (struct.pack("!H", 4001) + "müde".encode(), Message("close", "müde", 4001)),
    ],
)
async def test_close_when_from_the_provider_keeps_code_and_reason_and_is_answered_by_the_client_alone(payload, message):
    answered = []

    async def closing(talk: Talk) -> None:
        await talk.say(_frame(_CLOSE, payload))
        answered.extend([await _heard(talk), await _heard(talk)])

    async with _opened(closing) as (reply, _):
        assert await reply.socket.receive() == message
        await reply.socket.send(Message("text", "not yet"))
        await reply.socket.send(message)
        await until(lambda: bool(answered))
    assert answered == [(_TEXT, b"not yet"), (_CLOSE, payload)]


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (Message("close", ""), b""),
        (Message("close", "", 1005), b""),
        (Message("close", "", 1006), b""),
        (Message("close", "bye", 4002), struct.pack("!H", 4002) + b"bye"),
    ],
)
async def test_close_when_from_the_client_reaches_the_provider_as_it_was(message, payload):
    heard = []

    async def listen(talk: Talk) -> None:
        heard.append(await _heard(talk))
        await talk.gone()

    async with _opened(listen) as (reply, _):
        await reply.socket.send(message)
        await until(lambda: bool(heard))
    assert heard == [(_CLOSE, payload)]


async def test_close_when_abrupt_ends_the_connection_without_a_frame():
    rest = []

    async def listen(talk: Talk) -> None:
        rest.append(await talk.reader.read())

    async with _opened(listen) as (reply, _):
        await reply.socket.send(Message("close", abrupt=True))
        await until(lambda: bool(rest))
    assert rest == [b""]


@pytest.mark.parametrize("how", ["hang_up", "reset"])
async def test_provider_when_lost_reads_as_an_abrupt_close_and_fails_on_writing(how):
    async def leave(talk: Talk) -> None:
        if how == "reset":
            talk.reset()
        else:
            await talk.hang_up()

    async with _opened(leave) as (reply, _):
        assert await reply.socket.receive() == Message("close", abrupt=True)
        with pytest.raises(UpstreamFailed) as caught:
            for _ in range(3):
                await reply.socket.send(Message("text", "x"))
        assert caught.value.code == "upstream_closed"


_MASKED = b"\x81\x82\x00\x00\x00\x00ok"


@pytest.mark.parametrize("frame", [_frame(_TEXT, b"x" * 200), b"\x83\x00", _frame(_TEXT, b"\xff"), _MASKED])
async def test_frame_when_too_large_or_invalid_fails_as_protocol_error(frame):
    async def say(talk: Talk) -> None:
        await talk.say(frame)
        await talk.gone()

    async with _opened(say, max_message_bytes=100) as (reply, _):
        with pytest.raises(UpstreamFailed) as caught:
            await reply.socket.receive()
        assert caught.value.code == "upstream_protocol_error"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\n\r\nno",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        b"Connection: close\r\n\r\nno",
    ],
    ids=["counted", "chunked", "to the end"],
)
@pytest.mark.parametrize("status", [401, 307])
async def test_handshake_when_refused_returns_the_providers_answer(framing, status):
    async def refuse(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 %d Who are you\r\nLocation: /v1/x\r\nX-Request-Id: r2\r\n" % status + framing)
        if b"close" in framing:
            await talk.hang_up()
        await talk.gone()

    async with peer(refuse) as provider, _client(provider.url) as client:
        reply = await client.connect(_request(provider.url))
        assert provider.connections == 1
        assert (reply.status, reply.reason, reply.socket, reply.subprotocol) == (status, "Who are you", None, None)
        assert (b"X-Request-Id", b"r2") in list(reply.headers)
        assert [await reply.read(), await reply.read()] == [b"no", b""]
        reply.close()
        await client.close()
        await until(lambda: not provider.open)


async def test_handshake_when_refused_at_length_is_cut_at_the_bound():
    async def refuse(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 500 No\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 2_000_000)
        await talk.gone()

    async with peer(refuse) as provider, _client(provider.url) as client:
        reply = await client.connect(_request(provider.url))
        assert not reply.complete
        assert len(await reply.read()) < 2_000_000
        with pytest.raises(UpstreamFailed):
            await reply.read()
        reply.close()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "upstream_first_byte_timeout"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
         "upstream_protocol_error"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "upstream_protocol_error"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "upstream_protocol_error"),
        (b"nonsense\r\n\r\n", "upstream_protocol_error"),
    ],
)  # fmt: skip
async def test_handshake_when_it_breaks_fails_with_its_code_and_frees_the_slot(said, code):
    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(said)
        await talk.gone()

    async with peer(script) as provider, _client(provider.url, first_byte_s=0.2) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.connect(_request(provider.url))
        assert caught.value.code == code
        assert isinstance(caught.value, UpstreamTimeout) is code.endswith("timeout")
        assert caught.value.sent
        await until(lambda: not provider.open)


async def test_handshake_when_the_connection_has_more_options_is_accepted():
    async def script(talk: Talk) -> None:
        await _accept(talk, connection=b"keep-alive, Upgrade")
        await talk.say(_frame(_TEXT, b"hello"))
        await talk.gone()

    async with peer(script) as provider, _client(provider.url) as client:
        reply = await client.connect(_request(provider.url))
        assert await reply.socket.receive() == Message("text", "hello")
        reply.close()


async def test_handshake_when_nobody_listens_fails_unsent():
    async with peer(lambda talk: talk.gone()) as provider:
        url = provider.url
    async with _client(url) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.connect(_request(url))
        assert (caught.value.code, caught.value.sent) == ("upstream_connect_failed", False)


async def test_handshake_when_cancelled_leaves_no_socket():
    async with peer(lambda talk: talk.gone()) as provider, _client(provider.url) as client:
        task = asyncio.create_task(client.connect(_request(provider.url)))
        await until(lambda: provider.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not provider.open)


def test_subprotocols_when_offered_lose_credentials_and_identities():
    headers = [
        (b"sec-websocket-protocol", b"realtime ,openai-insecure-api-key.sk-1, openai-beta.realtime-v1"),
        (b"Sec-WebSocket-Protocol", b"OpenAI-Organization.org-1,openai-project.proj, ,x"),
        (b"Other", b"y"),
    ]
    assert subprotocols(headers) == ["realtime", "openai-beta.realtime-v1", "x"]


async def test_handshake_when_this_process_has_no_descriptor_left_then_the_provider_is_not_blamed(monkeypatch):
    async def refused(*_arguments, **_options):
        raise OSError(errno.EMFILE, "Too many open files")

    async with peer(lambda talk: talk.gone()) as provider, _client(provider.url) as client:
        monkeypatch.setattr("aiohappyeyeballs.start_connection", refused)
        with pytest.raises(Overloaded) as caught:
            await client.connect(_request(provider.url))
        assert caught.value.code == "out_of_descriptors"
