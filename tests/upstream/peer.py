"""A scripted provider on a raw socket: what it says is bytes, what it heard is bytes."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from proxy.config import schema
from proxy.exchange import UpstreamRequest
from proxy.upstream.client import Client, make_client

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Heard:
    """One request as it stood on the wire."""

    head: bytes
    body: bytes
    connection: int


class Talk:
    """One accepted connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Heard:
        head = await self.head()
        lowered = head.lower()
        body = b""
        if b"content-length: " in lowered:
            length = int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        elif b"transfer-encoding: chunked" in lowered:
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        return Heard(head, body, self.number)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang_up(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed its side."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Talk], Awaitable[None]]


@dataclass
class Peer:
    port: int
    connections: int = 0
    scheme: str = "http"
    heard: list[Heard] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    closed: list[int] = field(default_factory=list)
    """Numbers of the connections whose end was noticed here, in that order."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"


@contextlib.asynccontextmanager
async def peer(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    state = Peer(0, scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        state.connections += 1
        number = state.connections
        state.open.add(writer)
        try:
            # Cancelled: the test is over. asyncio.start_server would log it as an error.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await script(Talk(number, reader, writer))
        finally:
            state.open.discard(writer)
            state.closed.append(number)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def answering(answer: bytes, heard: list[Heard] | None = None) -> Script:
    """Answer every request of a connection with the same bytes."""

    async def script(talk: Talk) -> None:
        while True:
            request = await talk.request()
            if heard is not None:
                heard.append(request)
            await talk.say(answer)

    return script


def answering_once(answer: bytes) -> Script:
    """Answer one request, then close."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(answer)
        await talk.hang_up()

    return script


@contextlib.asynccontextmanager
async def client_for(
    base_url: str, kind: str, /, ca_file: str | None = None, **settings: float
) -> AsyncIterator[Client]:
    """A client of `kind`; settings of all three sections by name."""
    sections: dict[str, dict[str, float]] = {"upstream": {}, "client": {}, "timeouts": {}}
    models = {"upstream": schema.Upstream, "client": schema.UpstreamClient, "timeouts": schema.Timeouts}
    for name, value in settings.items():
        section = next(key for key, model in models.items() if name in model.model_fields)
        sections[section][name] = value
    client = make_client(
        schema.Upstream(base_url=base_url, **sections["upstream"]),
        schema.UpstreamClient(kind=kind, ca_file=ca_file, **sections["client"]),
        schema.Timeouts(**sections["timeouts"]),
    )
    try:
        yield client
    finally:
        await client.close()


def get(url: str, **changes: object) -> UpstreamRequest:
    return UpstreamRequest(**{"method": "GET", "url": url, "headers": [], "body": None, **changes})


def post(url: str, body: object, **changes: object) -> UpstreamRequest:
    return get(url, method="POST", body=body, **changes)


async def body_of(reply: object) -> bytes:
    pieces = []
    while piece := await reply.read():
        pieces.append(piece)
    reply.close()
    return b"".join(pieces)


async def until(fact: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something that happens in the event loop on its own."""
    async with asyncio.timeout(timeout_s):
        while not fact():
            await asyncio.sleep(0.005)
