"""aiohttp's low-level server, hardened.

What is changed and why: the original request handler quotes a malformed header line, which may contain a key, in the
400 body and in a logged traceback; the original server silently creates a handler without limits if a keyword is wrong;
neither limits connections; a reader of a body with malformed chunks waits for ever, and so does a response whose client
does not read; its parser takes the last trailer of a chunked body for a header of the next request. Here protocol
errors become JSON in OpenAI's format that quotes nothing, limits always apply, a connection above the limit gets one
503 and is closed, a malformed body fails at once, who does not read is cut, and trailers are ignored.

Failure mode: an exception that escapes from a handler closes the connection, whatever was sent on it.

Source: aiohttp.web_server.Server, aiohttp.web_protocol.RequestHandler (3.14).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import StreamReader, http_exceptions, web
from aiohttp.http import SERVER_SOFTWARE, HttpRequestParser, RawRequestMessage
from aiohttp.http_writer import HttpVersion10, HttpVersion11
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest, Overloaded, ProxyError, forget_origins
from proxy.exchange import Inbound
from proxy.ingress.aiohttp_streams import AiohttpOutlet, Body, BoundedWriter
from proxy.ingress.lean_head import is_host
from proxy.ingress.lingering import Lingering
from proxy.ingress.own_answers import add_reference, raw_answer
from proxy.openai.error_body import render
from proxy.websocket_frames import MaskGuard

_log = logging.getLogger("sidegate.ingress")
_READ_BUFFER_BYTES = 65_536
_UNREADABLE = ERROR._replace(version=HttpVersion11)
_TOO_MANY = "Too many headers"
_END = b"\r\n\r\n"
_CUTS = 16

Handler = Callable[["RawRequest"], Awaitable[Any]]
"""Answers one request; returns what replaces a `web.StreamResponse`."""


class RawRequest(web.BaseRequest):
    """A request that gives access to its head exactly as received."""

    @property
    def outlet(self) -> AiohttpOutlet:
        """Where the answer is written."""
        return AiohttpOutlet(self._protocol)

    @property
    def target(self) -> str:
        """The raw request target: never decoded, never normalised."""
        return self._message.path

    @property
    def raw_header_lines(self) -> tuple[tuple[bytes, bytes], ...]:
        """Header lines in order, names in the client's case."""
        return self._message.raw_headers

    @property
    def is_upgrade(self) -> bool:
        """True for a request to upgrade to websocket."""
        return self._message.upgrade and self.headers.get("Upgrade", "").lower() == "websocket"

    @property
    def ends_connection(self) -> bool:
        """True if the connection cannot be reused, because what follows on it is ambiguous.

        After an upgrade that is refused, the meaning of following bytes is unknown; chunks in HTTP/1.0 are undefined
        (RFC 9112 section 6.1).
        """
        message = self._message
        return (message.upgrade and not self.is_upgrade) or (message.chunked and message.version < (1, 1))

    @property
    def body(self) -> Body:
        """The body; malformed framing raises our own exception."""
        return Body(self.content)

    @property
    def expects_continue(self) -> bool:
        """True if the client waits for `100 Continue` before it sends the body."""
        return self.version >= (1, 1) and self.headers.get("Expect", "").lower() == "100-continue"

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Remove the name of the HTTP library, which aiohttp adds if the provider has named no server."""
        if response.headers.get("Server") == SERVER_SOFTWARE:
            del response.headers["Server"]

    def recall(self, _version: object) -> Inbound | None:
        """Return nothing: repeated heads are not recognised here."""
        return None

    def remember(self, _version: object, inbound: Inbound) -> None:
        """Do nothing."""


class SafeHandler(RequestHandler):
    """One client connection."""

    __slots__ = ("_chunked", "_settings", "_tail")

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(manager, loop=loop, **settings)
        self._chunked: StreamReader | None = None
        """The chunked body that is being received."""
        self._tail = b""
        """The last bytes that arrived."""
        self._settings = settings

    def _new_parser(self) -> Any:
        settings = self._settings
        return HttpRequestParser(
            self,
            self._loop,
            settings["read_bufsize"],
            max_line_size=settings["max_line_size"],
            max_field_size=settings["max_field_size"],
            max_headers=settings["max_headers"],
            payload_exception=web.RequestPayloadError,
            auto_decompress=settings["auto_decompress"],
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Refuse websocket frames of a client that are not masked."""
        super().set_parser(cast(Any, MaskGuard(parser, masked=True)), data_received_cb)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse a connection above the limit before anything is read from it."""
        super().connection_made(transport)
        manager = cast("SafeServer", self._manager)
        if len(manager._connections) > manager.limits.connections and not manager.lingering.give_way():
            error = Overloaded(
                f"Too many connections: the limit is {manager.limits.connections}.",
                code="too_many_connections",
                retry_after_s=1.0,
            )
            manager.on_error(error)
            cast(asyncio.Transport, transport).write(raw_answer(error))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the body that was being received: it knows this connection."""
        super().connection_lost(exc)
        self._chunked = None

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that serves this connection, and so every request of it."""
        return self._task_handler

    async def start(self) -> None:
        """Serve the requests of this connection, one after another, in this one task.

        Replaces aiohttp's own loop, which creates a task for every request (`make bench`: 4 % of a relayed one). Keeps
        its keep-alive time, back-pressure on pipelined requests, and the lingering read of an unwanted body.
        """
        manager = cast("SafeServer", self._manager)
        try:
            while not self._force_close and await self._serve_next(manager):
                self._watch_idle_time()
        except asyncio.CancelledError:
            pass  # see LeanConnection: kept by this task, it would keep the request
        finally:
            self.force_close()

    async def _serve_next(self, manager: "SafeServer") -> bool:
        """Answer one request; return whether the connection may serve another."""
        message, payload = await self._next_message()
        request = manager.make_request(message, payload, self)
        self._current_request = request
        self._request_in_progress = True
        try:
            if isinstance(message, _ErrInfo):
                response = self.handle_error(request, message.status, message.exc)
            elif not is_strict(message):
                response = self.handle_error(request)
            else:
                response = await manager.handler(request)
            _, lost = await self.finish_response(request, response, None)
            if lost:
                return False
            self._keepalive = bool(response.keep_alive)
            if not payload.is_eof():
                await manager.lingering.linger(Body(payload))
                if not payload.is_eof():
                    self.close()
        except ConnectionError:
            return False
        except Exception as error:
            self.log_exception(exc_info=error)
            return False
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        return self._keepalive and not self._close

    async def _next_message(self) -> tuple[Any, Any]:
        if not self._messages:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return found

    def _watch_idle_time(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, requests that follow one another separately."""
        if self._upgraded or not data:
            self._receive(data)
            return
        for piece in cut_between_requests(self._tail, data):
            self._receive(piece)

    def _receive(self, data: bytes) -> None:
        """Parse a piece; an error in the middle of a body ends that body."""
        known = len(self._messages)
        super().data_received(data)
        if self._messages and isinstance(wrong := self._messages[-1][0], _ErrInfo):
            forget_origins(wrong.exc)  # its frames know the list that holds it, this connection, and what has arrived
            self._break_bodies()
        self._tail = (self._tail + data[-len(_END) :])[-len(_END) :]
        self._forget_trailers(known)

    def _forget_trailers(self, known: int) -> None:
        """Replace the parser after a chunked body: it keeps the last trailer and would add it to the next head.

        On a connection that a load balancer shares among users, that would be a header of somebody else's request.
        What the old parser has read of a next request all the same (see `cut_between_requests`) is not answered; the
        connection is closed after the answers before it. Only clients that do not wait for answers send so early, and
        they know which are missing.
        `known`: messages that waited before this reading.
        """
        arrived = list(self._messages)[known:]
        while arrived and self._chunked is None:
            message, body = arrived.pop(0)
            if getattr(message, "chunked", False):
                self._chunked = body
        if self._chunked is None or not self._chunked.is_eof():
            return
        self._chunked = None
        if self._tail == _END and not arrived and not self._upgraded and not self._buffer_paused:
            self._parser = self._new_parser()
            return
        for _ in arrived:
            self._messages.pop()
        self.close()

    def _break_bodies(self) -> None:
        bodies = [body for _, body in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(web.RequestPayloadError("malformed"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 400,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed without quoting anything."""
        error = _as_error(exc)
        cast("SafeServer", self._manager).on_error(error)
        answer = error_response(error)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log the location of a failure, never its text."""
        error = kwargs.get("exc_info")
        _log.error("connection failed", exc_info=error if isinstance(error, Exception) else None)


class SafeServer(web.Server):
    """Creates one `SafeHandler` per connection, always with our limits."""

    def __init__(
        self, handler: Handler, limits: Limits, keepalive_s: float, on_error: Callable[[ProxyError], None]
    ) -> None:
        super().__init__(cast(Any, handler), handler_cancellation=True)
        self.handler = handler
        self.on_error = on_error
        self.lingering = Lingering()
        self.follow(limits, keepalive_s)

    def follow(self, limits: Limits, keepalive_s: float) -> None:
        """Apply changed settings; those for heads and keep-alive affect new connections only."""
        self.limits = limits
        self._handler_settings: dict[str, Any] = {
            "keepalive_timeout": keepalive_s,
            "access_log": None,
            "max_line_size": limits.header_line_bytes,
            "max_field_size": limits.header_line_bytes,
            "max_headers": limits.headers,
            "read_bufsize": _READ_BUFFER_BYTES,
            "auto_decompress": False,
        }

    def make_request(self, message: Any, payload: Any, protocol: SafeHandler) -> RawRequest:
        """Return the request for `message`; a placeholder if it could not be parsed."""
        self.requests_count += 1
        task = protocol.task or asyncio.current_task()
        assert task is not None
        head = _UNREADABLE if isinstance(message, _ErrInfo) else message
        return RawRequest(head, payload, protocol, BoundedWriter(protocol, self._loop), task, self._loop)

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return SafeHandler(self, loop=asyncio.get_running_loop(), **self._handler_settings)


def error_response(error: ProxyError) -> web.Response:
    """Return an error as aiohttp's own response, with an id that leads to its log line."""
    status, headers, body = render(error)
    response = web.Response(status=status, body=body)
    add_reference(response)
    for name, value in headers:
        response.headers[name.decode("latin-1")] = value.decode("latin-1")
    reference = response.headers["x-sidegate-trace-id"]
    _log.info("refused", extra={"trace": reference, "status": status, "code": error.code})
    return response


def is_strict(message: RawRequestMessage) -> bool:
    """Tell whether a head obeys the rules that aiohttp's parser does not know: version, coding of the body, Host.

    Others on the way may read such a request in another way than we do: of `gzip, chunked` we would decode only the
    chunks, and pass on what is left as the body. Source: RFC 9112 sections 2.3, 3.2 and 6.1.
    """
    codings = [value.lower() for value in message.headers.getall("Transfer-Encoding", ())]
    host = message.headers.get("Host", "").encode("utf-8", "surrogateescape")
    return message.version in (HttpVersion10, HttpVersion11) and codings in ([], ["chunked"]) and is_host(host)


def cut_between_requests(tail: bytes, data: bytes) -> list[bytes]:
    """Cut what arrived wherever a request may end and another begin: behind an empty line, before a capital letter.

    Other text that looks like this is cut as well, which makes no difference to a parser. `tail`: the last bytes before
    `data`. Only the first places are looked at, because a piece costs as much as a whole reading.
    """
    joined = tail + data
    pieces: list[bytes] = []
    start = end = len(tail)
    for _ in range(_CUTS):
        found = joined.find(_END, max(end - len(_END) + 1, 0))
        if found < 0:
            break
        end = found + len(_END)
        if joined[end : end + 1].isupper():
            pieces.append(joined[start:end])
            start = end
    return [*pieces, joined[start:]] if pieces else [data]


def _as_error(exc: BaseException | None) -> ProxyError:
    if isinstance(exc, http_exceptions.LineTooLong) or _TOO_MANY in str(getattr(exc, "message", "")):
        return InvalidRequest(
            "The request line or a header line is too long, or there are too many.",
            status=431,
            code="headers_too_large",
        )
    return InvalidRequest("The request is not valid HTTP/1.1.", code="malformed_request")
