"""A client on a raw socket, and a server with a handler of the test's own: what is asserted is bytes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from proxy.config.schema import Limits
from proxy.errors import ProxyError
from proxy.ingress import own_answers as own
from proxy.ingress.lean import LeanServer
from proxy.ingress.listener import Handler, SafeServer

PATIENCE_S = 10.0
KIND: ContextVar[str] = ContextVar("which server serves", default="lean")


@dataclass
class Answer:
    """One answer as it stood on the wire."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def value(self, name: bytes) -> bytes | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower():
                return value.strip()
        return None


class Client:
    """One connection to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n"))[:-4]

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer by its framing; without framing, to the end of the connection."""
        answer = Answer(await self.head(), b"")
        if to_head or answer.status in (204, 304):
            return answer
        length = answer.value(b"content-length")
        if answer.value(b"transfer-encoding") == b"chunked":
            answer.body = await self._chunks()
        elif length is not None:
            answer.body = await self.exactly(int(length))
        else:
            answer.body = await self.rest()
        return answer

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.line(), 16):
            body += (await self.exactly(size + 2))[:-2]
        await self.line()
        return body

    async def line(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\n")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    data += piece
        return data

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Server:
    port: int
    manager: LeanServer | SafeServer
    errors: list[ProxyError]

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, *pieces: bytes) -> Answer:
        """Send a request on a connection of its own and return the first answer."""
        async with self.client() as client:
            await client.say(*pieces)
            return await client.answer()


def sent_by_ourselves(handler: Handler) -> Handler:
    """Let a handler of a test answer with aiohttp's response where aiohttp does not send it."""

    async def handle(asked):
        response = await handler(asked)
        if not isinstance(response, web.Response) or isinstance(asked, web.BaseRequest):
            return response
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
        is_last = response.keep_alive is False
        return await own.answer(asked, response.status, headers, response.body or b"", is_last=is_last)

    return handle


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, limits: Limits | None = None, keepalive_s: float = 30.0, **lean: Any
) -> AsyncIterator[Server]:
    """`lean`: what the lean server alone has to know."""
    errors: list[ProxyError] = []
    given = (sent_by_ourselves(handler), limits or Limits(), keepalive_s, errors.append)
    manager = LeanServer(*given, **lean) if KIND.get() == "lean" else SafeServer(*given)
    server = await asyncio.get_running_loop().create_server(manager, "127.0.0.1", 0)
    try:
        yield Server(server.sockets[0].getsockname()[1], manager, errors)
    finally:
        server.close()
        await manager.shutdown(0.5)
        await server.wait_closed()


def request(target: str, *lines: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    framing = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/{version}\r\nHost: sidegate\r\n{framing}" + "".join(f"{line}\r\n" for line in lines)
    return head.encode("latin-1") + b"\r\n" + body


async def until(fact, timeout_s: float = PATIENCE_S) -> None:
    """Wait for something that happens in the event loop on its own."""
    async with asyncio.timeout(timeout_s):
        while not fact():
            await asyncio.sleep(0.002)
