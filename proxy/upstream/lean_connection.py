"""One connection to a provider: carries one request after the other, each with its reply.

Theory of operation: `begin` attaches a `Reply`, `transmit` writes the request, incoming bytes pass through the
`AnswerParser` into the reply, and the end of the answer detaches it. A connection that can be reused is then returned
through `on_free`; any other is aborted, and `on_lost` notifies the pool when its socket is closed.

    idle --begin--> busy --complete, reusable--> idle
                     '--fault, timeout, surplus, EOF, abort--> lost        idle --any byte, EOF--> lost

Flow control: more than `read_ahead` unread bytes pause the socket, and reading resumes it. An upload waits while the
socket is full, in its own task, so that an early answer is noticed. Time during which nobody waits in `read` does not
count as the provider's. A piece that a waiting reader's sink takes starts the gap anew: its time is noted, and looked
at when the timer fires.

Source: RFC 9112 section 9 (connection management), 9.5 for the early answer, 9.8 for the end of TLS.
"""

import asyncio
import math
import select
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from proxy.event_loop.write_batching import LoopTurn, Outlet
from proxy.upstream import failures
from proxy.upstream.lean_answer import AnswerParser
from proxy.upstream.lean_deadline import Deadline
from proxy.upstream.lean_reply import Reply


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a connection. Times in seconds."""

    line_bytes: int
    lines: int
    read_ahead: int
    first_byte_s: float
    gap_s: float


class Connection(asyncio.Protocol):
    """`on_free`, `on_lost`: called with this connection, at most once each per use and per life."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        turn: LoopTurn,
    ) -> None:
        self._loop = loop
        self._bounds = bounds
        self._on_free = on_free
        self._on_lost = on_lost
        self._outlet = Outlet(turn)
        self._transport: asyncio.Transport | None = None
        """To be paused and resumed; only the outlet writes and closes."""
        self._parser = AnswerParser(line_bytes=bounds.line_bytes, lines=bounds.lines)
        self._deadline = Deadline(loop, self._expire)
        self._reply: Reply | None = None
        self._upload: asyncio.Task[None] | None = None
        self._total_at = math.inf
        self.is_paused = False
        """Nothing is read from the socket, because too much is unread."""
        self.heard_at = 0.0
        """`loop.time()` of the latest piece that was taken where it arrived."""
        self.has_served = False
        """An exchange has ended on it: the provider may close it at any time."""
        self.idle_since = 0.0
        """`loop.time()` of the last return to the pool; maintained by the pool."""

    def is_open(self) -> bool:
        """Tell whether another request may be written."""
        transport = self._transport
        return transport is not None and not transport.is_closing()

    def is_silent(self) -> bool:
        """Tell whether the kernel has neither data nor EOF that the event loop has not delivered yet."""
        poller = select.poll()
        assert self._transport is not None
        poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poller.poll(0)

    def begin(self, *, bodiless: bool, total_at: float) -> Reply:
        """Attach the reply of the request about to be written. `total_at`: deadline of the whole exchange."""
        self._parser.begin(bodiless=bodiless)
        self._total_at = total_at
        self._reply = Reply(self, self._loop)
        return self._reply

    def transmit(self, head: bytes, pieces: AsyncIterator[bytes] | None, length: int | None) -> None:
        """Write the request. `pieces`: body after `head`; `length`: their sum, `None` for chunked."""
        if not (self._outlet.write_in_turn if pieces is None else self._outlet.write)(head):
            raise failures.failed(failures.CLOSED)
        if pieces is None:
            self.await_answer()
            return
        self._allow_all()
        self._upload = self._loop.create_task(self._send_body(pieces, length), name="upstream upload")

    def await_answer(self) -> None:
        """Start the first-byte timeout."""
        self._allow_until(self._loop.time() + self._bounds.first_byte_s, failures.FIRST_BYTE_TIMEOUT)

    def await_more(self) -> None:
        """Start the gap timeout: a reader waits for the next piece of the body."""
        self._allow_until(self._loop.time() + self._bounds.gap_s, failures.GAP_TIMEOUT)

    def resume(self) -> None:
        """Resume reading from the socket if it was paused."""
        if self.is_paused:
            self.is_paused = False
            if self._transport is not None:
                self._transport.resume_reading()

    def drop(self) -> None:
        """Drop the connection at once; a reader of its answer gets the failure."""
        if self._reply is None:
            self.abort()
        else:
            code = failures.BODY_CUT if self._parser.status else failures.CLOSED
            self._fail(self._reply, failures.failed(code))

    def abort(self) -> None:
        """Drop the connection at once, when nobody waits for its answer any more. Idempotent."""
        self._detach()
        self._outlet.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._outlet.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and pass it to the reply."""
        reply = self._reply
        if reply is None or self._outlet.kept:
            # Unsolicited data on an idle connection cannot belong to the next request, nor to one not yet written.
            self.drop()
            return
        parser = self._parser
        body = parser.feed(data)
        if not reply.status and parser.status:
            self._take_head(reply)
        if body and reply.take(body) > self._bounds.read_ahead and not self.is_paused and not parser.complete:
            self.is_paused = True
            assert self._transport is not None
            self._transport.pause_reading()
        if parser.complete:
            self._finish(reply)
        elif parser.fault is not None:
            self._fail(reply, failures.malformed(parser.fault))

    def eof_received(self) -> None:
        """End an answer whose body ends with the connection; any other exchange has failed."""
        reply = self._reply
        if reply is not None and self._parser.until_eof and self._is_end_regular:
            self.abort()
            reply.end()
        else:
            self.drop()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail the current exchange and report the loss. Idempotent."""
        self._transport = None
        self._outlet.lost()
        self.drop()
        self._deadline.let_go()
        self._parser.let_go()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Pause the upload."""
        self._outlet.pause()

    def resume_writing(self) -> None:
        """Resume the upload."""
        self._outlet.resume()

    @property
    def _is_end_regular(self) -> bool:
        """False if TLS has not said that this is the end: anybody on the way may have cut the answer."""
        tls = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        try:
            return tls is None or tls.read(1) == b""
        except ssl.SSLError:
            return False

    def _allow_until(self, at: float, code: str) -> None:
        """Let the provider be silent until `at`, but not beyond the end of the exchange."""
        if at < self._total_at:
            self._deadline.set(at, code)
        else:
            self._allow_all()

    def _allow_all(self) -> None:
        """Allow all the time that is left."""
        self._deadline.set(self._total_at, failures.TOTAL_TIMEOUT)

    def _take_head(self, reply: Reply) -> None:
        parser = self._parser
        reply.take_head(parser.status, parser.reason, parser.headers, parser.fields)
        if parser.status >= 400 and self._upload is not None:
            # The provider does not want the rest of the body.
            self._upload.cancel()

    def _finish(self, reply: Reply) -> None:
        # If part of a body was not sent, the provider would read the next request as the rest of it.
        uploading = self._upload is not None and (not self._upload.done() or self._upload.cancelled())
        self._detach()
        reply.end()
        if uploading or not self._parser.reusable or not self._outlet.is_drained():
            self.abort()
            return
        if self.is_paused:
            self.resume()
        self.has_served = True
        self._on_free(self)

    def _expire(self, code: str) -> None:
        reply = self._reply
        if reply is None:
            return
        if code == failures.GAP_TIMEOUT and self.heard_at + self._bounds.gap_s > self._loop.time():
            self._allow_until(self.heard_at + self._bounds.gap_s, failures.GAP_TIMEOUT)
        elif code == failures.TOTAL_TIMEOUT or reply.is_awaited:
            self._fail(reply, failures.timed_out(code))
        else:  # data has arrived and its reader is busy; stopping the timer for every piece would cost more
            self._allow_all()

    def _fail(self, reply: Reply, error: Exception) -> None:
        self.abort()
        reply.fail(error)

    def _detach(self) -> None:
        self._deadline.clear()
        self._reply = None
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()

    async def _send_body(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        """Write the body piece by piece. A failure breaks the exchange: the reply's reader gets the error."""
        try:
            await self._write_pieces(pieces, length)
        except Exception as error:
            # From the iterator (a client that disconnected, a body over its limit) or a wrong length. Without a reply
            # the connection is gone, and the reader already has the reason.
            if self._reply is not None:
                self._fail(self._reply, error)

    async def _write_pieces(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        sent = 0
        async for piece in pieces:
            if not piece:
                continue
            sent += len(piece)
            if length is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            elif sent > length:
                raise failures.body_mismatch()
            await self._write_piece(piece)
        if length is None:
            await self._write_piece(b"0\r\n\r\n")
        elif sent < length:
            raise failures.body_mismatch()
        if self._reply is not None and not self._reply.status:
            self.await_answer()

    async def _write_piece(self, piece: bytes) -> None:
        """Write, and wait until the socket accepts more; a provider that stops reading is as late as a silent one."""
        if not self._outlet.write(piece):
            raise failures.failed(failures.CLOSED)
        if not self._outlet.is_paused:
            return
        reply = self._reply
        waiting_for_head = reply is not None and not reply.status
        if waiting_for_head:
            self.await_answer()
        await self._outlet.drain()
        if waiting_for_head and reply is not None and not reply.status:
            self._allow_all()
