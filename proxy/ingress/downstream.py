"""The client's side of an answer: a raw HTTP/1.1 writer on a connection of either server.

The server parses requests and owns the connection; the response head is written here, byte for byte as the provider
sent it. aiohttp's own response would add Server and Content-Type, change header case and re-encode values. The object
replaces `web.StreamResponse`: aiohttp's handler uses only `prepare`, `write_eof` and `keep_alive`.

Failure mode: a closing transport, or a reader that stalls longer than `write_stall_s`, raises `ClientDisconnected`.
Nothing is buffered beyond the transport's high-water mark.

Source: RFC 9112 sections 6 (framing), 7.1 (chunks), 9.6 (tear-down).
"""

import asyncio
import time

from proxy.errors import ClientDisconnected, ProxyError
from proxy.exchange import Delivery, Headers
from proxy.ingress.client_request import ClientRequest

_NO_LENGTH_STATUSES = frozenset({204, 304})
_END_OF_CHUNKS = b"0\r\n\r\n"
_JOIN = b"".join
_MANY = 1024
_SIZES = tuple([b"%x\r\n" % size for size in range(_MANY)])
"""The heads of small chunks: to format one takes three times as long as to join it with its data."""
_GONE = "The client closed the connection."
_SMALL_BYTES = 16_384
"""A larger answer is written at once: whether its client reads fast enough must be known."""
_PIECE_BYTES = 1 << 20


class HttpDownstream:
    """`exchange.Downstream` for one request; also the response object for aiohttp's handler."""

    def __init__(self, request: ClientRequest, delivery: Delivery, write_stall_s: float) -> None:
        self._request = request
        self._outlet = request.outlet
        self._delivery = delivery
        self._write_stall_s = write_stall_s
        self._chunked = False
        self._unwritten_bytes = 0
        """Of what is sent in pieces."""
        self.keep_alive = request.keep_alive
        """Whether the connection may serve another request; aiohttp's request handler reads it as well."""
        self.ended_by: ProxyError | None = None
        """Why we end the request: set before its cancellation, to distinguish that from the client's."""

    # Used by aiohttp's request handler.

    async def prepare(self, _request: object) -> None:
        """Do nothing: the head was sent by `send` or `start`."""

    async def write_eof(self, _data: bytes = b"") -> None:
        """Do nothing: the body was ended by `send`, `finish` or `cut`."""

    # Used by whoever may end the request from outside.

    @property
    def unsent_bytes(self) -> int:
        """Bytes written but not sent, because the client does not read."""
        return self._outlet.unsent_bytes + self._unwritten_bytes

    def drop(self) -> None:
        """Close at once and discard unsent bytes."""
        self._outlet.abort()

    # Used by the pipeline.

    async def send(self, status: int, reason: str, headers: Headers, body: bytes) -> None:
        """Send a complete response, in one write if it is small.

        For HEAD its head alone, with the length that the body would have.
        """
        framing = b"" if status in _NO_LENGTH_STATUSES else b"Content-Length: %d\r\n" % len(body)
        if not self._request.body.is_eof():
            self.keep_alive = False  # answered before the request's end: what follows may be body or a request
        head = self._head(status, reason, headers, framing)
        if self._request.method == "HEAD":
            body = b""
        write = self._outlet.write_in_turn if len(body) <= _SMALL_BYTES else self._outlet.write
        if len(body) <= _PIECE_BYTES:
            self._begin(status, write(head + body))
            self._delivery.bytes += len(body)
        else:
            self._begin(status, write(head))
            await self._write_pieces(body)
        if self._outlet.is_paused:
            await self._drain()

    async def start(self, status: int, reason: str, headers: Headers, length: int | None) -> None:
        """Send the head at once."""
        if status == 204:  # given a length, some clients would wait for a body that cannot come
            framing = b""
        elif length is not None:
            framing = b"Content-Length: %d\r\n" % length
        elif status in _NO_LENGTH_STATUSES or self._request.method == "HEAD":
            framing = b""
        elif self._request.version >= (1, 1):
            self._chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self.keep_alive = False
            framing = b""
        self._begin(status, self._outlet.write(self._head(status, reason, headers, framing)))
        if self._outlet.is_paused:
            await self._drain()

    def put(self, data: bytes) -> bool:
        """Send body bytes at once; False: the transport is above its high-water mark."""
        outlet, size = self._outlet, len(data)
        if self._chunked:
            data = _JOIN((_SIZES[size] if size < _MANY else b"%x\r\n" % size, data, b"\r\n"))
        if not outlet.write(data):
            raise ClientDisconnected(_GONE)
        self._delivery.bytes += size
        return not outlet.is_paused

    async def write(self, data: bytes) -> None:
        """Send body bytes; without any, only wait for the client."""
        if len(data) > _PIECE_BYTES:
            await self._write_pieces(data)
        elif data:
            self.put(data)
        if self._outlet.is_paused:
            await self._drain()

    async def _write_pieces(self, data: bytes) -> None:
        """Send many bytes, and let others have their turn between the pieces: 8 MB take 10 ms and more at once.

        If cancelled, it writes the rest at once: an error event that follows must not begin inside another one.
        """
        self._delivery.bytes += len(data)
        self._unwritten_bytes = len(data)
        try:
            while self._unwritten_bytes:
                if not self._write_piece(data):
                    raise ClientDisconnected(_GONE)
                if self._outlet.is_paused:
                    await self._drain()
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            while self._unwritten_bytes and self._write_piece(data):
                continue
            raise
        finally:
            self._delivery.bytes -= self._unwritten_bytes
            self._unwritten_bytes = 0

    def _write_piece(self, data: bytes) -> bool:
        """Write the next of `data`, of which `_unwritten_bytes` are left; False: the connection is lost or closing."""
        at = len(data) - self._unwritten_bytes
        piece = data[at : at + _PIECE_BYTES]
        if not self._outlet.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece):
            return False
        self._unwritten_bytes -= len(piece)
        return True

    async def finish(self) -> None:
        """End the body."""
        if self._chunked:
            if not self._outlet.write(_END_OF_CHUNKS):
                raise ClientDisconnected(_GONE)
            if self._outlet.is_paused:
                await self._drain()

    def cut(self) -> None:
        """Close after flushing what was written, without ending the body."""
        self.keep_alive = False
        self._outlet.close()

    def refuse_more(self) -> None:
        """Close the connection after the answer to this request."""
        self.keep_alive = False

    def _head(self, status: int, reason: str, headers: Headers, framing: bytes) -> bytes:
        version = self._request.version
        first = b"HTTP/1.%d %d %b" % (version[1] > 0, status, reason.encode("latin-1", "replace"))
        lines = (first, *map(b": ".join, headers))
        connection = b""
        if not self.keep_alive:
            connection = b"Connection: close\r\n"
        elif version < (1, 1):
            connection = b"Connection: keep-alive\r\n"
        return b"%b\r\n%b%b\r\n" % (b"\r\n".join(lines), framing, connection)

    def _begin(self, status: int, was_written: bool) -> None:
        """Note that a head was written: from now on, no other answer can be given."""
        if not was_written:
            raise ClientDisconnected(_GONE)
        self._delivery.status = status
        self._delivery.committed_at = time.monotonic()

    async def _drain(self) -> None:
        """Wait until the client has read enough. Called only if writing is paused, to save a coroutine otherwise."""
        try:
            async with asyncio.timeout(self._write_stall_s):
                await self._outlet.drain()
        except TimeoutError:
            self._outlet.abort()
            raise ClientDisconnected("The client did not read for too long.", code="client_write_stalled") from None
        except ConnectionError:
            raise ClientDisconnected(_GONE) from None
