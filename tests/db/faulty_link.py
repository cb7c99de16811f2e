"""A TCP port in front of PostgreSQL's unix socket that can be cut, or go silent without a word."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class FaultyLink:
    """Forwards while `healthy`; silent: swallows everything and stays open, as a network without a route does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = parse_qs(urlsplit(url).query)["host"][0] + "/.s.PGSQL.5432"
        self._healthy = asyncio.Event()
        self._healthy.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self.opened = 0
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
        there, back = await asyncio.open_unix_connection(self._path)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (writer, back)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, back))
                pumps.create_task(self._pump(there, writer))
        except* (ConnectionError, EOFError):
            pass
        finally:
            del self._connections[task]
            for side in (writer, back):
                side.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._healthy.wait()
            sink.write(data)
            await sink.drain()
        raise EOFError


@asynccontextmanager
async def faulty_link(url: str) -> AsyncIterator[FaultyLink]:
    link = FaultyLink(url)
    await link.up()
    try:
        yield link
    finally:
        await link.down()
