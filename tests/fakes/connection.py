"""One accepted socket of the scripted provider, and the request on it exactly as it arrived.

Rule of the file: bytes only. Heads are split, bodies freed of their framing and hashed; nothing is judged or answered.
Failure mode: whatever a peer does ends in `PeerGone` or in `ended`, never in a hanging script.
"""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

KEPT_BODY_BYTES = 16 * 1024 * 1024
HIGH_WATER = 65_536


@dataclass
class Seen:
    """One request as it stood on the wire."""

    connection: int
    head: bytes
    method: str = ""
    target: str = ""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    """The body without its framing, at most `KEPT_BODY_BYTES`; `body_bytes` and `body_sha256` cover all of it."""
    body_bytes: int = 0
    body_sha256: str = ""
    body_complete: bool = False
    arrived_at: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    """When this request's connection went away; `None` while it is open."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        found = self.values(name)
        return found[0] if found else None


class PeerGone(Exception):
    """The peer closed or reset the connection while the script was still at work."""


class Connection(asyncio.Protocol):
    """One accepted socket: a buffer and a condition that moves on data, end, loss and room to write."""

    def __init__(
        self, accept: Callable[["Connection"], Coroutine[Any, Any, None]], lost: Callable[["Connection"], None]
    ) -> None:
        self._accept = accept
        self._on_lost = lost
        self.buffer = bytearray()
        self.ended = False
        self.lost = False
        self.number = 0
        self.current: Seen | None = None
        self._moved = asyncio.Event()
        self._writable = True
        self._read_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.task = asyncio.get_running_loop().create_task(self._accept(self))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > 1024 * 1024 and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        self._moved.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._closed()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.lost = True
        self._closed()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._moved.set()

    def _closed(self) -> None:
        if self.current is not None and self.current.closed_at is None:
            self.current.closed_at = time.monotonic()
        self._moved.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    async def take(self, at_most: int) -> bytes:
        """Return what is buffered, waiting for the first byte; `b""` at the peer's end."""
        await self.until(lambda: bool(self.buffer) or self.ended)
        data = bytes(self.buffer[:at_most])
        del self.buffer[:at_most]
        if self._read_paused and len(self.buffer) < 256 * 1024 and not self.lost:
            self._read_paused = False
            self.transport.resume_reading()
        return data

    async def take_until(self, mark: bytes) -> bytes | None:
        """Return everything up to and including `mark`, `None` when the peer ended before it."""
        await self.until(lambda: mark in self.buffer or self.ended)
        at = self.buffer.find(mark)
        if at < 0:
            return None
        return await self.take(at + len(mark))

    async def take_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await self.take(count - len(data))
            if not piece:
                raise PeerGone
            data += piece
        return data

    async def write(self, data: bytes) -> None:
        if self.lost:
            raise PeerGone
        self.transport.write(data)
        await self.until(lambda: self._writable or self.lost)
        if self.lost:
            raise PeerGone

    def reset(self) -> None:
        """Close with RST instead of FIN; what the peer has not read yet is lost."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def parse_head(connection: int, head: bytes) -> Seen:
    start, *lines = head[:-4].split(b"\r\n")
    method, target, version = start.decode("latin-1").split(" ", 2)
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip()))
    return Seen(connection, head, method, target, version, headers)


async def read_body(connection: Connection, seen: Seen) -> None:
    digest = hashlib.sha256()
    kept = bytearray()

    async def take(count: int) -> None:
        while count:
            piece = await connection.take(min(count, 262_144))
            if not piece:
                raise PeerGone
            count -= len(piece)
            digest.update(piece)
            seen.body_bytes += len(piece)
            kept.extend(piece[: KEPT_BODY_BYTES - len(kept)])

    if (seen.value(b"transfer-encoding") or b"").lower() == b"chunked":
        while size := int((await connection.take_until(b"\r\n") or b"0").split(b";")[0], 16):
            await take(size)
            await connection.take_exactly(2)
        while (await connection.take_until(b"\r\n") or b"\r\n") != b"\r\n":
            pass
    else:
        await take(int(seen.value(b"content-length") or b"0"))
    seen.body, seen.body_sha256, seen.body_complete = bytes(kept), digest.hexdigest(), True
