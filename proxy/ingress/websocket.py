"""The client's side of a relayed websocket, on aiohttp's server websocket.

Control frames are not answered here, close frames included: they pass to the provider, whose answers pass back. The
handshake is completed only after the provider has accepted, with the provider's choice of subprotocol. Compression is
not negotiated, so that every message can be read as text.

Failure mode: a disconnected client is a `close` message with `abrupt` set when reading, `ClientDisconnected` when
writing; a client that does not read for `write_stall_s` counts as disconnected too.
Source: RFC 6455 sections 4.2.2, 5.5.1 and 7.4.
"""

import asyncio
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web

from proxy.errors import ClientDisconnected, InvalidRequest
from proxy.exchange import Headers, Message
from proxy.ingress.listener import RawRequest
from proxy.openai.websocket_texts import in_bytes, text_of
from proxy.websocket_frames import frame_of, message_of

_CLOSE_WAIT_S = 5.0
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class ClientWebsocket:
    """`exchange.WebsocketPeer` for the client; usable after `accept`."""

    def __init__(self, request: RawRequest, max_message_bytes: int, write_stall_s: float) -> None:
        self._request = request
        self._max_message_bytes = max_message_bytes
        self._write_stall_s = write_stall_s
        self.response: web.WebSocketResponse | None = None
        self._closed_at: float | None = None
        """When the client got its close frame, on the loop's clock."""
        self._has_closed = False
        """The client has sent its close frame."""
        self._stalled = False

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Complete the handshake with the provider's choice of subprotocol and our headers.

        Raises:
            InvalidRequest: the client's part of the handshake is invalid; nothing was sent.
            ClientDisconnected: the client has disconnected.
        """
        response = web.WebSocketResponse(
            timeout=_CLOSE_WAIT_S,
            autoclose=False,
            autoping=False,
            compress=False,
            max_msg_size=self._max_message_bytes,
            decode_text=False,
        )
        for name, value in headers:
            response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        if subprotocol is not None:  # aiohttp would look for it in the first of the client's fields only
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        try:
            await response.prepare(self._request)
        except web.HTTPException:
            raise InvalidRequest("The websocket handshake is not valid.", code="invalid_handshake") from None
        except ConnectionError:
            raise ClientDisconnected("The client closed the connection.") from None
        self.response = response

    async def receive(self) -> Message:
        """Return the client's next message."""
        assert self.response is not None
        frame = await self.response.receive()
        if frame.type is WSMsgType.ERROR:
            raise InvalidRequest("The websocket message is malformed or too large.", code="invalid_websocket_message")
        self._has_closed = self._has_closed or frame.type is WSMsgType.CLOSE
        if frame.type is WSMsgType.TEXT:
            try:
                return Message("text", await text_of(frame.data))
            except UnicodeDecodeError:
                await self.response.close(code=WSCloseCode.INVALID_TEXT)
                raise InvalidRequest("The websocket message is not UTF-8.", code="invalid_websocket_message") from None
        return message_of(frame.type, frame.data, frame.extra)

    async def send(self, message: Message) -> None:
        """Pass a message of the provider to the client."""
        assert self.response is not None
        try:
            async with asyncio.timeout(self._write_stall_s):
                await self._send(self.response, message)
        except TimeoutError:
            self._stalled = True
            raise ClientDisconnected("The client did not read for too long.", code="client_write_stalled") from None
        except (ConnectionError, RuntimeError):
            raise ClientDisconnected("The client closed the websocket.") from None

    async def _send(self, response: web.WebSocketResponse, message: Message) -> None:
        if message.abrupt:
            self._drop()
        elif message.kind != "close" or self._closed_at is None:  # a close frame is sent once
            if message.kind == "close":
                self._closed_at = asyncio.get_running_loop().time()
            payload, opcode = frame_of(await in_bytes(message))
            await response.send_frame(payload, WSMsgType(opcode))

    async def finish(self) -> None:
        """Let the client answer its close frame, for `_CLOSE_WAIT_S` since it was sent, then end the connection.

        If it were ended earlier, the kernel might reset it, and the close frame would be lost.
        """
        sent_at = self._closed_at
        if self.response is not None and not self.response.closed and not self._has_closed and sent_at is not None:
            with suppress(TimeoutError, ConnectionError, RuntimeError):
                async with asyncio.timeout_at(sent_at + _CLOSE_WAIT_S):
                    while (await self.response.receive()).type not in _ENDS:
                        pass
        self._drop()

    def release(self) -> None:
        """Drop the connection of a stalled client, once its end is recorded: it would never read what is queued."""
        if self._stalled and (transport := self._request.transport) is not None:
            transport.abort()

    def _drop(self) -> None:
        if (transport := self._request.transport) is not None:
            transport.close()
