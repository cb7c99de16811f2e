"""Opens a websocket to the provider and adapts it to the relay: messages in, messages out.

aiohttp sends the handshake like any other request and implements the frames. Its own `ws_connect` is not used: it
follows redirects, drops a body that ends with the connection, and accepts a `Connection` field with one option only.
Pings and pongs are passed on and not answered here, and neither are close frames; compression is not offered, so
messages can be read directly. A handshake that the provider refuses is not an error: its response, with up to
`_REFUSAL_BYTES` of body, becomes a reply without a socket, so that the client gets the provider's own message.

    connect -> reply.socket is None: refused, read it like any reply      -> reply.socket: relay, then reply.close()

Failure mode: a disconnected provider is a `close` message with `abrupt` set when reading, `UpstreamFailed` when
writing.

Source: RFC 6455 sections 4.1, 5.5 and 7.4; OpenAI API reference, "Realtime with WebSockets"; aiohttp 3.14,
`ClientSession._ws_connect`.
"""

import asyncio
import base64
import hashlib
import os
import ssl
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.client_ws import DEFAULT_WS_CLIENT_TIMEOUT
from aiohttp.http import WS_KEY, WebSocketReader, WebSocketWriter
from multidict import CIMultiDict
from yarl import URL

from proxy.config import schema
from proxy.exchange import Headers, Message, Sink, UpstreamRequest, first_values
from proxy.openai.websocket_texts import in_bytes, text_of
from proxy.upstream import failures
from proxy.upstream.headers import names_credential
from proxy.upstream.origin import Origin
from proxy.upstream.session_setup import (
    Progress,
    Slots,
    drop,
    head_failure,
    make_session,
    reason_text,
    text_fields,
)
from proxy.websocket_frames import MaskGuard, frame_of, message_of

_REFUSAL_BYTES: Final = 1_048_576
_READ_AHEAD_BYTES: Final = 65_536
_HANDSHAKE_PREFIX: Final = b"sec-websocket-"
_IDENTITY_PREFIXES: Final = (b"openai-organization.", b"openai-project.")


def subprotocols(headers: Headers) -> list[str]:
    """Return the subprotocols that the client offers, without those that carry a credential or an identity."""
    offered: list[str] = []
    for name, value in headers:
        if name.lower() != b"sec-websocket-protocol":
            continue
        for member in value.split(b","):
            token = member.strip(b" \t")
            if token and not names_credential(token) and not token.lower().startswith(_IDENTITY_PREFIXES):
                offered.append(token.decode("latin-1"))
    return offered


def _without_handshake(headers: Headers) -> Headers:
    return [field for field in headers if not field[0].lower().startswith(_HANDSHAKE_PREFIX)]


class WebsocketClient:
    """Opens websockets to one upstream. Must be created inside the event loop that uses it."""

    def __init__(
        self,
        upstream: schema.Upstream,
        client: schema.UpstreamClient,
        timeouts: schema.Timeouts,
        max_message_bytes: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._origin = Origin.of(upstream.base_url)
        self._timeouts = timeouts
        self._max_message_bytes = max_message_bytes
        self._slots = Slots(upstream.max_connections, timeouts.pool_s)
        self._session = make_session(upstream, client, tls)

    async def connect(self, request: UpstreamRequest) -> "WebsocketReply":
        """Perform the handshake. `request.headers` may have the client's `Sec-WebSocket-*`; only offers are used.

        The caller must `close()` the reply.

        Raises:
            UpstreamFailed, UpstreamTimeout, NoUpstreamAvailable, Overloaded, ShuttingDown: as `client.Client.send`.
        """
        self._origin.target(request.url)
        if self._session.closed:
            raise failures.shutting_down()
        fields = text_fields(_without_handshake(request.headers))
        total_at = asyncio.get_running_loop().time() + self._timeouts.total_s
        return await self._slots.start(
            total_at, lambda: self._shake_hands(request, fields, Progress(request, self._timeouts, total_at))
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def _shake_hands(
        self, request: UpstreamRequest, fields: CIMultiDict[str], progress: Progress
    ) -> "WebsocketReply":
        offered, key = subprotocols(request.headers), base64.b64encode(os.urandom(16))
        fields.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
        fields["Sec-WebSocket-Key"] = key.decode()
        if offered:
            fields["Sec-WebSocket-Protocol"] = ", ".join(offered)
        try:
            async with progress:
                response = await self._session.request(
                    "GET", URL(request.url, encoded=True), headers=fields, allow_redirects=False
                )
                if response.status != 101:
                    return WebsocketReply(response, await _refusal(response), None, self._slots.give)
        except TimeoutError as error:
            raise failures.timed_out(progress.code, sent=progress.sent) from error
        except aiohttp.ClientError as error:
            raise head_failure(error, sent=progress.sent) from error
        if not _accepts(response, key):
            drop(response)
            raise failures.malformed("not the answer to this handshake")
        chosen = response.headers.get("Sec-WebSocket-Protocol")
        socket = _open(response, chosen if chosen in offered else None, self._max_message_bytes)
        return WebsocketReply(response, b"", socket, self._slots.give)


async def _refusal(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a refusal, with at least one byte more than allowed if it is too long."""
    body = b""
    try:
        while len(body) <= _REFUSAL_BYTES and (piece := await response.content.readany()):
            body += piece
    except BaseException:
        response.close()
        raise
    return body


def _accepts(response: aiohttp.ClientResponse, key: bytes) -> bool:
    """Tell whether a response with status 101 completes the handshake that sent `key`."""
    fields = response.headers
    options = {option.strip().lower() for value in fields.getall("Connection", ()) for option in value.split(",")}
    digest = hashlib.sha1(key + WS_KEY, usedforsecurity=False).digest()
    return (
        fields.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in options
        and fields.get("Sec-WebSocket-Accept") == base64.b64encode(digest).decode()
    )


def _open(
    response: aiohttp.ClientResponse, subprotocol: str | None, max_message_bytes: int
) -> aiohttp.ClientWebSocketResponse:
    """Return the socket of an accepted handshake, made of aiohttp's parts as its `ws_connect` does."""
    connection = response.connection
    if connection is None or (protocol := connection.protocol) is None or protocol.transport is None:
        response.close()
        raise failures.failed(failures.CLOSED)
    loop = asyncio.get_running_loop()
    reader = WebSocketDataQueue(protocol, _READ_AHEAD_BYTES, loop=loop)
    writer = WebSocketWriter(protocol, protocol.transport, use_mask=True)
    socket: aiohttp.ClientWebSocketResponse = aiohttp.ClientWebSocketResponse(
        reader, writer, subprotocol, response, DEFAULT_WS_CLIENT_TIMEOUT, False, False, loop  # autoclose, autoping
    )  # fmt: skip
    # The queue refers to the parser weakly; the socket keeps it alive.
    socket._parser = WebSocketReader(reader, max_message_bytes, compress=False, decode_text=False)
    protocol.set_parser(MaskGuard(socket._parser, masked=False), reader)
    return socket


class WebsocketReply:
    """Implements `exchange.UpstreamReply`. `body`: of a refusal. `socket`: the open one, `None` if it was refused."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        body: bytes,
        socket: aiohttp.ClientWebSocketResponse | None,
        on_done: Callable[[], None],
    ) -> None:
        self._response = response
        self._body = body
        self._is_cut = len(body) > _REFUSAL_BYTES
        self._on_done: Callable[[], None] | None = on_done
        self.status = response.status
        self.reason = reason_text(response)
        # The header fields of an accepted handshake concern only this connection.
        self.headers = response.raw_headers if socket is None else _without_handshake(response.raw_headers)
        self.fields = first_values(self.headers)
        self.socket = None if socket is None else UpstreamWebsocket(socket, response)
        self.subprotocol = None if socket is None else socket.protocol

    @property
    def complete(self) -> bool:
        """True if the body of a refusal is complete."""
        return not self._is_cut

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return the body of a refusal, then `b""`. Raises UpstreamFailed if it exceeds the limit."""
        body, self._body = self._body, b""
        if not body and self._is_cut:
            raise failures.failed(failures.BODY_CUT)
        return body

    def close(self) -> None:
        """Drop the connection. Idempotent; never waits."""
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            self._response.close()
            on_done()


class UpstreamWebsocket:
    """Implements `exchange.WebsocketPeer` for the provider."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, response: aiohttp.ClientResponse) -> None:
        self._socket = socket
        self._response = response
        self._closing = False

    async def receive(self) -> Message:
        """Return the provider's next message.

        Raises:
            UpstreamFailed: the provider violated the protocol, or sent a message over the limit.
        """
        frame = await self._socket.receive()
        if frame.type is WSMsgType.ERROR:
            raise failures.malformed("websocket frame refused")
        if frame.type is WSMsgType.TEXT:
            try:
                return Message("text", await text_of(frame.data))
            except UnicodeDecodeError:
                await self._socket.close(code=WSCloseCode.INVALID_TEXT)
                raise failures.malformed("websocket frame refused") from None
        return message_of(frame.type, frame.data, frame.extra)

    async def send(self, message: Message) -> None:
        """Pass a message of the client to the provider.

        Raises:
            UpstreamFailed: the connection is lost.
        """
        try:
            if message.abrupt:
                self._response.close()
            elif message.kind != "close" or not self._closing:  # a close frame is sent once
                self._closing = self._closing or message.kind == "close"
                payload, opcode = frame_of(await in_bytes(message))
                await self._socket.send_frame(payload, WSMsgType(opcode))
        except (ConnectionError, aiohttp.ClientError) as error:
            raise failures.failed(failures.CLOSED) from error
