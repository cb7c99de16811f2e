"""Opens a websocket to the provider and adapts it to the relay: messages in, messages out.

aiohttp implements handshake and frames. Pings and pongs are passed on and not answered here; compression is not
offered, so messages can be read directly. A handshake that the provider refuses is not an error: its response, with up
to `_REFUSAL_BYTES` of body, becomes a reply without a socket, so that the client gets the provider's own message.

    connect -> reply.socket is None: refused, read it like any reply      -> reply.socket: relay, then reply.close()

Failure mode: a disconnected provider is a `close` message with `abrupt` set when reading, `UpstreamFailed` when
writing. A refusal whose body is delimited by the end of the connection loses that body (aiohttp does not read it in a
handshake).

Source: RFC 6455 sections 4.1, 5.5 and 7.4; OpenAI API reference, "Realtime with WebSockets".
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import WSMsgType
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from proxy.config import schema
from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Message, UpstreamRequest
from proxy.upstream import failures
from proxy.upstream.headers import names_credential
from proxy.upstream.origin import Origin
from proxy.upstream.session_setup import (
    UNDER_WAY,
    Progress,
    Slots,
    head_failure,
    make_session,
    reason_text,
    text_fields,
)
from proxy.websocket_frames import frame_of, message_of

_REFUSAL_BYTES: Final = 1_048_576
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
    ) -> None:
        self._origin = Origin.of(upstream.base_url)
        self._timeouts = timeouts
        self._max_message_bytes = max_message_bytes
        self._slots = Slots(upstream.max_connections, timeouts.pool_s)
        self._session = make_session(upstream, client, self._origin, response_class=_HandshakeResponse)

    async def connect(self, request: UpstreamRequest) -> "WebsocketReply":
        """Perform the handshake. `request.headers` may have the client's `Sec-WebSocket-*`; only offers are used.

        The caller must `close()` the reply.

        Raises:
            UpstreamFailed, UpstreamTimeout, NoUpstreamAvailable, ShuttingDown: as `client.Client.send`.
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
        answer = _Answer()
        UNDER_WAY.set(progress)
        _ANSWER.set(answer)
        try:
            async with progress.timeout:
                socket = await self._session.ws_connect(
                    URL(request.url, encoded=True),
                    protocols=subprotocols(request.headers),
                    headers=fields,
                    autoclose=False,
                    autoping=False,
                    compress=0,
                    max_msg_size=self._max_message_bytes,
                )
        except TimeoutError as error:
            raise failures.timed_out(progress.code, sent=progress.sent) from error
        except aiohttp.ClientError as error:
            if isinstance(error, aiohttp.WSServerHandshakeError) and answer.status != 101:
                return WebsocketReply(answer, None, self._slots.give)
            raise head_failure(error, sent=progress.sent) from error
        return WebsocketReply(answer, socket, self._slots.give)


@dataclass(slots=True)
class _Answer:
    """The provider's response to the handshake."""

    status: int = 0
    reason: str = ""
    headers: Headers = ()
    body: bytes = b""
    cut: bool = False
    response: aiohttp.ClientResponse | None = None


_ANSWER: Final[ContextVar[_Answer]] = ContextVar("answer to the handshake under way")
"""Lets aiohttp's response, which a handshake creates in the request's task, find the place that keeps it."""


class _HandshakeResponse(aiohttp.ClientResponse):
    """Keeps the response to a handshake, whose body aiohttp would discard."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head, and the body of a refusal."""
        await super().start(connection)
        answer = _ANSWER.get()
        answer.status, answer.headers, answer.response = self.status, self.raw_headers, self
        answer.reason = reason_text(self)
        if self.status != 101:
            while len(answer.body) <= _REFUSAL_BYTES and (piece := await self.content.readany()):
                answer.body += piece
            answer.cut = len(answer.body) > _REFUSAL_BYTES
        return self


class WebsocketReply:
    """Implements `exchange.UpstreamReply`. `socket`: the open websocket, `None` if the handshake was refused."""

    def __init__(
        self, answer: _Answer, socket: aiohttp.ClientWebSocketResponse | None, on_done: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._on_done: Callable[[], None] | None = on_done
        self.status = answer.status
        self.reason = answer.reason
        # The header fields of an accepted handshake concern only this connection.
        self.headers = answer.headers if socket is None else _without_handshake(answer.headers)
        self.socket = None if socket is None or answer.response is None else UpstreamWebsocket(socket, answer.response)
        self.subprotocol = None if socket is None else socket.protocol

    @property
    def complete(self) -> bool:
        """True if the body of a refusal is complete."""
        return not self._answer.cut

    async def read(self) -> bytes:
        """Return the body of a refusal, then `b""`. Raises UpstreamFailed if it exceeds the limit."""
        body, self._answer.body = self._answer.body, b""
        if not body and self._answer.cut:
            raise failures.failed(failures.BODY_CUT)
        return body

    def close(self) -> None:
        """Drop the connection. Idempotent; never waits."""
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            if self._answer.response is not None:
                self._answer.response.close()
            on_done()


class UpstreamWebsocket:
    """Implements `exchange.WebsocketPeer` for the provider."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, response: aiohttp.ClientResponse) -> None:
        self._socket = socket
        self._response = response
        self._closing = False

    async def receive(self) -> Message:
        """Return the provider's next message; its close frame is echoed.

        Raises:
            UpstreamFailed: the provider violated the protocol, or sent a message over the limit.
        """
        frame = await self._socket.receive()
        if frame.type is WSMsgType.ERROR:
            raise failures.malformed("websocket frame refused")
        message = message_of(frame.type, frame.data, frame.extra)
        if frame.type is WSMsgType.CLOSE:
            with suppress(UpstreamFailed):
                await self.send(message)
        return message

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
                payload, opcode = frame_of(message)
                await self._socket.send_frame(payload, WSMsgType(opcode))
        except (ConnectionError, aiohttp.ClientError) as error:
            raise failures.failed(failures.CLOSED) from error
