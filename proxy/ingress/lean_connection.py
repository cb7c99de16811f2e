"""One client connection of the lean server: plain requests, one after the other.

Theory of operation: bytes become a `LeanRequest`, and one task per connection runs the handler. What arrives meanwhile
is either the request's body or is kept until its turn. The first request that is not plain moves the connection to
aiohttp's protocol, for good and with the original bytes.

    idle --plain head--> busy --answered--> idle         idle --anything else--> aiohttp
                          '-- client gone: its task is cancelled, --error, Connection: close, unread body--> closed

Flow control: an unread body pauses the socket, and so do pipelined requests. Timeouts: an idle connection, or one whose
head stays incomplete, is closed after `keepalive_s`; bodies and slow readers are watched by those who wait for them.

Failure mode: an exception that escapes from a handler closes the connection, whatever was sent on it.

Source: RFC 9112 section 9 (connection management).
"""

import asyncio
import logging
import socket
from typing import Any, Final, Protocol, cast

from proxy.event_loop.write_batching import LoopTurn, Outlet
from proxy.exchange import Headers, Inbound
from proxy.ingress.lean_body import LeanBody
from proxy.ingress.lean_head import Head, is_begun, read_head
from proxy.ingress.lingering import Lingering

_log = logging.getLogger("sidegate.ingress")
_VERSION: Final = (1, 1)


class Server(Protocol):
    """The part of its server that a connection needs."""

    turn: LoopTurn
    lingering: Lingering
    keepalive_s: float
    line_bytes: int
    lines: int

    def handler(self, request: Any) -> Any:
        """Answer a request; the awaitable returns a downstream."""

    def admit(self, connection: "LeanConnection") -> bool:
        """Count a new connection; False: it exceeds the limit and was refused."""

    def forget(self, connection: "LeanConnection") -> None:
        """Stop counting it. Idempotent."""

    def is_elsewhere(self, target: str) -> bool:
        """Tell whether aiohttp's protocol serves this target."""

    def hand_over(self, transport: asyncio.Transport, data: bytes, *, is_elsewhere: bool) -> None:
        """Transfer a connection to aiohttp's protocol, with the bytes read so far."""


class LeanRequest:
    """A plain request, with the attributes of `listener.RawRequest`."""

    __slots__ = ("body", "content_length", "head", "keep_alive", "method", "outlet", "remote", "task")

    version = _VERSION
    is_upgrade = ends_connection = expects_continue = False

    def __init__(self, head: Head, content_length: int | None, body: LeanBody, connection: "LeanConnection") -> None:
        self.head = head
        self.method = head.method
        """In capitals."""
        self.keep_alive = head.keep_alive
        """Whether the client wants to keep the connection."""
        self.content_length = content_length
        self.body = body
        self.outlet = connection.outlet
        """Where the answer is written."""
        self.remote = connection.peer
        """The client's address."""
        self.task = connection.task
        """The task that serves the connection."""

    @property
    def target(self) -> str:
        """The raw request target: never decoded, never normalised."""
        return self.head.target

    @property
    def raw_header_lines(self) -> Headers:
        """Header lines in order, names in the client's case, without Content-Length."""
        return self.head.headers

    @property
    def body_exists(self) -> bool:
        """Whether a body was announced."""
        return bool(self.content_length)

    def recall(self, version: object) -> Inbound | None:
        """Return what the handler stored for this head, in the same version of the configuration."""
        made = self.head.made
        return made[1] if made is not None and made[0] is version else None

    def remember(self, version: object, inbound: Inbound) -> None:
        """Store what the handler derived from this head."""
        self.head.made = (version, inbound)


class LeanConnection(asyncio.Protocol):
    """`task` serves all requests, starting with the first."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self.outlet = Outlet(server.turn)
        """Where all answers are written."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        """To be paused, resumed and transferred; only `outlet` writes and closes."""
        self.peer: str | None = None
        self.task: asyncio.Task[None] | None = None
        self._known: Head | None = None
        """The latest head that was parsed: the next one is probably the same."""
        self._request: LeanRequest | None = None
        self._news: asyncio.Future[None] | None = None
        """The idle task waits for it: a request has begun, or the connection was handed over."""
        self._waiting = b""
        """Data after the current request, or an incomplete head."""
        self._is_closing = False
        """No further request is served; what arrives is ignored."""
        self._is_handed_over = False
        """Transferred: transport and client belong to aiohttp."""
        self._is_reading_paused = False
        self._idle_since = loop.time()
        """When the latest answer ended; a head that arrives slowly does not change it."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """True while no request runs."""
        return self._request is None

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self.outlet.connected(self._transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._server.admit(self):
            self._timer = self._loop.call_later(self._server.keepalive_s, self._check_idle)
        else:
            self.close()

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the current body; keep or start what follows it."""
        request = self._request
        if self._is_closing:
            return
        if request is not None:
            if not request.body.is_eof():
                data = request.body.feed(data)
            if data:
                self._keep(data)
        else:
            self._begin(self._waiting + data if self._waiting else data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel whatever runs for this client."""
        self._transport = None
        self._is_closing = True
        self._stop_timer()
        self._server.forget(self)
        self.outlet.lost()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """Let senders wait, as the client does not read."""
        self.outlet.pause()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self.outlet.resume()

    # Called by others.

    def pause_reading(self) -> None:
        """Let the kernel hold what the client sends. Idempotent."""
        if not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again. Idempotent."""
        if self._is_reading_paused and self._transport is not None and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after flushing what was written. Idempotent."""
        self._is_closing = True
        self._stop_timer()
        self.outlet.close()

    # Requests.

    def _keep(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) > self._server.line_bytes:
            self.pause_reading()

    def _begin(self, data: bytes) -> None:
        """Start the request whose head is at the beginning of `data`, wait for the rest of it, or transfer it."""
        known = self._known
        found = None if known is None else known.follows(data)
        if known is None or found is None:
            if len(data) < self._server.line_bytes and is_begun(data):
                self._waiting = data
                return
            read = read_head(data, line_bytes=self._server.line_bytes, lines=self._server.lines)
            is_elsewhere = read is not None and self._server.is_elsewhere(read[0].target)
            if read is None or is_elsewhere:
                self._hand_over(data, is_elsewhere)
                return
            known, found = read[0], read[1:]
            self._known = known
        length, size = found
        end = size + (length or 0)
        body = LeanBody(self, length or 0, data[size:end])
        self._waiting = data[end:] if len(data) > end else b""
        if self.task is None:
            self.task = self._loop.create_task(self._serve(), name="client connection")
        self._request = LeanRequest(known, length, body, self)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _hand_over(self, data: bytes, is_elsewhere: bool) -> None:
        self.outlet.flush()
        self.outlet.lost()
        self._is_handed_over = self._is_closing = True
        self._stop_timer()
        self._waiting = b""
        self._server.forget(self)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        if self._transport is not None:
            self._server.hand_over(self._transport, data, is_elsewhere=is_elsewhere)

    async def _serve(self) -> None:
        """Serve the requests of this connection, one after another, in this one task."""
        try:
            while not self._is_handed_over:
                if (request := self._request) is None:
                    self._news = self._loop.create_future()
                    await self._news
                    continue
                answer = await self._server.handler(request)
                if not request.body.is_eof():
                    await self._server.lingering.linger(request.body)
                    if not request.body.is_eof():
                        return  # the rest of it would be read as the next request
                if not answer.keep_alive or self._is_closing:
                    return
                self._end()
        except (ConnectionError, asyncio.CancelledError):
            # Cancelled is this task alone, as the client left or the server ends. It would keep the exception, with its
            # frames the request, and that this task: all of it, bodies too, would wait for the garbage collector.
            pass
        except Exception as error:
            _log.error("connection failed", exc_info=error)
        finally:
            self._request = None  # it knows this connection
            if not self._is_handed_over:
                self.close()

    def _end(self) -> None:
        """Become idle, or start what is waiting already."""
        self._request = None
        self._idle_since = self._loop.time()
        self.resume_reading()
        if self._waiting:
            self._begin(self._waiting)

    def _check_idle(self) -> None:
        due = self._idle_since + self._server.keepalive_s
        now = self._loop.time()
        if self._request is not None:
            due = now + self._server.keepalive_s
        elif now >= due:
            self.close()
            return
        self._timer = self._loop.call_at(due, self._check_idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
