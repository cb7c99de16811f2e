"""RFC 6455 by hand, both roles: a test sees every frame, its opcode, its bits and its close code.

Rule of the file: frames are sent and shown as they are. Nothing is answered by itself: no automatic pong, no automatic
close. `connect` is the client's side over a `Wire`, `socket_script` the provider's side inside a script.
"""

import base64
import hashlib
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.provider import Call, Script
from tests.fakes.wire import Address, Reply, Wire, request

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Frame:
    """One frame, unmasked."""

    opcode: int
    data: bytes
    final: bool = True

    @property
    def close_code(self) -> int | None:
        return struct.unpack("!H", self.data[:2])[0] if self.opcode == CLOSE and len(self.data) >= 2 else None


def encode(frame: Frame, *, mask: bool) -> bytes:
    head = bytes([(0x80 if frame.final else 0) | frame.opcode])
    size = len(frame.data)
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + frame.data
    key = os.urandom(4)
    return head + key + apply_mask(frame.data, key)


def apply_mask(data: bytes, key: bytes) -> bytes:
    repeated = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


async def decode(exactly: Callable[[int], Awaitable[bytes]]) -> Frame:
    first, second = await exactly(2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack("!H", await exactly(2))[0]
    elif size == 127:
        size = struct.unpack("!Q", await exactly(8))[0]
    key = await exactly(4) if second & 0x80 else b""
    data = await exactly(size) if size else b""
    return Frame(first & 0x0F, apply_mask(data, key) if key else data, bool(first & 0x80))


def close_frame(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, struct.pack("!H", code) + reason)


class Socket:
    """One open websocket, either role."""

    def __init__(
        self, exactly: Callable[[int], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]], mask: bool
    ) -> None:
        self._exactly = exactly
        self._send = send
        self._mask = mask

    async def send(self, frame: Frame) -> None:
        await self._send(encode(frame, mask=self._mask))

    async def receive(self) -> Frame:
        return await decode(self._exactly)


def accept_key(key: bytes) -> str:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()


def socket_script(talk: Callable[[Socket], Awaitable[None]], *headers: str, subprotocol: str = "") -> Script:
    """A script that accepts the handshake, talks, and closes the connection."""

    async def perform(call: Call) -> None:
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", *headers]
        lines.append(f"Sec-WebSocket-Accept: {accept_key(call.seen.value(b'sec-websocket-key') or b'')}")
        if subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        await call.send("\r\n".join([*lines, "", ""]).encode())
        await talk(Socket(call.connection.take_exactly, call.send, mask=False))
        call.close()

    return perform


async def connect(address: Address, target: str, *headers: str, case: str) -> tuple[Wire, Reply, Socket]:
    """Open a connection and ask for an upgrade; the reply says whether it was granted."""
    wire = await Wire.open(address)
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    await wire.send(request("GET", target, *upgrade, *headers, case=case))
    reply = await wire.head()
    if reply.status == 101:
        assert reply.value("sec-websocket-accept") == accept_key(key.encode())
    return wire, reply, Socket(wire.exactly, wire.send, mask=True)
