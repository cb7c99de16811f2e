"""A TCP port in front of PostgreSQL's unix socket that can be cut, be late, or go silent without a word."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

_TLS_WANTED = struct.pack("!i", 80877103)


class FaultyLink:
    """Forwards while `healthy`; silent: swallows everything and stays open, as a network without a route does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = parse_qs(urlsplit(url).query)["host"][0] + "/.s.PGSQL.5432"
        self._healthy = asyncio.Event()
        self._healthy.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self.opened = self.open = 0
        self.delay_s = 0.0
        """How late everything is that PostgreSQL says."""
        self.most: int | None = None
        """More connections at once are refused, as by a role's CONNECTION LIMIT."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        parts = urlsplit(self._url)
        return parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}", query="").geturl()

    async def up(self) -> None:
        self._healthy.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def silent(self) -> None:
        self._healthy.clear()

    async def down(self) -> None:
        """Refuse new connections and cut the old ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._healthy.set()
        for sides in self._connections.values():
            for side in sides:
                side.transport.abort()
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        if self.most is not None and self.open >= self.most:
            return await _refuse(reader, writer)
        self.open += 1
        try:
            await self._forward(reader, writer)
        finally:
            self.open -= 1

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._path)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (writer, back)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, back))
                pumps.create_task(self._pump(there, writer, is_late=True))
        except* (ConnectionError, EOFError):
            pass
        finally:
            del self._connections[task]
            for side in (writer, back):
                side.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_late: bool = False) -> None:
        while data := await source.read(65536):
            if is_late and self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._healthy.wait()
            sink.write(data)
            await sink.drain()
        raise EOFError


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as PostgreSQL does when a role has all the connections that it may have."""
    if (await reader.read(1024))[4:8] == _TLS_WANTED:
        writer.write(b"N")
        await reader.read(1024)
    told = b"SFATAL\0VFATAL\0C53300\0Mtoo many connections for role\0\0"
    writer.write(b"E" + struct.pack("!i", len(told) + 4) + told)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def faulty_link(url: str) -> AsyncIterator[FaultyLink]:
    link = FaultyLink(url)
    await link.up()
    try:
        yield link
    finally:
        await link.down()
