"""A client on bare sockets: sends exactly the bytes it is given and reports exactly the bytes that came back.

Rule of the file: nothing is normalised. Header names keep their case and order, bodies are given both as they stood on
the wire and without their framing, every arrival keeps its time, and the way the connection ended is a fact of the
answer. `exchange` is for one request per connection, `Wire` for everything else.
"""

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Literal

Address = tuple[str, int]
Ending = Literal["complete", "cut", "reset", "open"]
"""`complete`: as the framing promised. `cut`: EOF before that. `reset`: RST. `open`: still running."""


@dataclass
class Reply:
    """One answer. `ending` says whether the body was whole."""

    version: str = ""
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    head: bytes = b""
    body: bytes = b""
    raw_body: bytes = b""
    """With its framing."""
    informational: list[bytes] = field(default_factory=list)
    """Heads of 1xx answers before this one."""
    ending: Ending = "open"

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        found = self.values(name)
        return found[0] if found else None

    @property
    def trace_id(self) -> str:
        found = self.value("x-sidegate-trace-id")
        assert found, f"no trace id on a {self.status}"
        return found


class Cut(Exception):
    """The peer ended the connection in the middle of something. `reset`: by RST."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Wire:
    """One TCP connection to the proxy or to the provider."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.arrivals: list[tuple[float, int]] = []
        """Monotonic time and size of every read that returned something."""
        self._buffer = bytearray()

    @classmethod
    async def open(cls, address: Address, *, receive_buffer: int | None = None) -> "Wire":
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError:
            sock.close()
            raise
        limit = receive_buffer or 262_144
        reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
        return cls(reader, writer)

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Leave with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def more(self) -> bytes:
        """Read what is there, waiting for the first byte. Raises: Cut at the end."""
        try:
            data = await self.reader.read(65_536)
        except ConnectionError:
            raise Cut(reset=True) from None
        if not data:
            raise Cut(reset=False)
        self.arrivals.append((time.monotonic(), len(data)))
        return data

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to and including `mark`."""
        while (at := self._buffer.find(mark)) < 0:
            self._buffer += await self.more()
        return self._take(at + len(mark))

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self.more()
        return self._take(count)

    async def some(self) -> bytes:
        """Return what has arrived, waiting for the first byte."""
        return self._take(len(self._buffer)) if self._buffer else await self.more()

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def ended(self) -> Ending:
        """Read to the end of the connection and say how it came."""
        try:
            while True:
                self._buffer += await self.more()
        except Cut as cut:
            return "reset" if cut.reset else "cut"

    async def head(self) -> Reply:
        """Read one response head, 1xx ones aside."""
        informational = []
        while True:
            head = await self.until(b"\r\n\r\n")
            start, *lines = head[:-4].decode("latin-1").split("\r\n")
            version, status, *reason = start.split(" ", 2)
            if not (status.startswith("1") and status != "101"):
                break
            informational.append(head)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Reply(version, int(status), reason[0] if reason else "", headers, head, informational=informational)

    async def reply(self, method: str = "POST") -> Reply:
        """Read one whole answer; a body that is cut stays in the reply, with `ending` telling so."""
        reply = await self.head()
        try:
            await self.body(reply, method)
            reply.ending = "complete"
        except Cut as cut:
            reply.ending = "reset" if cut.reset else "cut"
        return reply

    async def body(self, reply: Reply, method: str) -> None:
        if method == "HEAD" or reply.status in (204, 304) or reply.status < 200:
            return
        if (reply.value("transfer-encoding") or "").lower() == "chunked":
            await self._chunked(reply)
        elif (length := reply.value("content-length")) is not None:
            await self._counted(reply, int(length))
        else:
            await self._to_the_end(reply)

    async def _chunked(self, reply: Reply) -> None:
        size = -1
        while size:
            line = await self.until(b"\r\n")
            reply.raw_body += line
            size = int(line.split(b";")[0], 16)
            data = await self.exactly(size + 2)
            reply.raw_body += data
            reply.body += data[:-2]

    async def _counted(self, reply: Reply, length: int) -> None:
        kept = bytearray()
        try:
            while len(kept) < length:
                if not self._buffer:
                    self._buffer += await self.more()
                kept += self._take(min(length - len(kept), len(self._buffer)))
        finally:
            reply.body = reply.raw_body = bytes(kept)

    async def _to_the_end(self, reply: Reply) -> None:
        try:
            while True:
                reply.body += self._take(len(self._buffer))
                self._buffer += await self.more()
        except Cut as cut:
            reply.raw_body = reply.body
            if cut.reset:
                raise


def request(
    method: str, target: str, *headers: str, body: bytes | None = None, host: str = "provider.test", case: str = ""
) -> bytes:
    """The bytes of a request; a body gets Content-Length unless a header frames it already."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if case:
        lines.append(f"x-case-id: {case}")
    lines += headers
    if body is not None and not any(h.lower().startswith("transfer-encoding:") for h in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def post(path: str, body: bytes, *headers: str, case: str) -> bytes:
    """A JSON POST."""
    return request("POST", path, "Content-Type: application/json", *headers, body=body, case=case)


async def exchange(address: Address, data: bytes, timeout_s: float = 20.0) -> Reply:
    """Send one request on a fresh connection and read its answer."""
    async with asyncio.timeout(timeout_s), await Wire.open(address) as wire:
        await wire.send(data)
        return await wire.reply(data.split(b" ", 1)[0].decode("latin-1"))


async def exchange_both(direct: Address, through: Address, data: bytes) -> tuple[Reply, Reply]:
    """Send the same bytes to the provider itself and to the proxy."""
    return await exchange(direct, data), await exchange(through, data)
