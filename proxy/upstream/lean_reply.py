"""The reader's half of an exchange: a reply that the connection fills and the relay reads.

Rule of the file: what arrived is delivered before the error or end that followed it. One reader at a time, waiting on
one future. A reply outlives its connection: after the end, the connection may serve another request while the last
pieces are still unread here.

A reader that waits may leave a `sink`: pieces are offered to it while they arrive, and only what it does not take wakes
the reader. Nothing is unread then, so that nothing is overtaken.
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from proxy.exchange import Headers, Sink
from proxy.upstream import failures


class Line(Protocol):
    """The part of its connection that a reply needs."""

    is_paused: bool
    """Nothing is read from the provider until `resume`."""
    heard_at: float
    """`loop.time()` when the waiting reader's sink took a piece: its wait began again then."""

    def await_more(self) -> None:
        """Start the gap timeout."""

    def resume(self) -> None:
        """Resume reading from the provider."""

    def abort(self) -> None:
        """Drop the connection."""


class Reply:
    """Implements `exchange.UpstreamReply`. `status` is 0 until the head has arrived."""

    __slots__ = (
        "_error", "_line", "_loop", "_pieces", "_sink", "_unread", "_waiter", "complete", "fields", "headers", "reason",
        "status",
    )  # fmt: skip

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line: Line | None = line
        self._loop = loop
        self._pieces: list[bytes] = []
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        """The waiting reader's."""
        self._error: Exception | None = None
        self.complete = False
        """The whole body has arrived."""
        self.status = 0
        self.reason = ""
        self.headers: Headers = ()
        self.fields: Mapping[bytes, bytes] = {}

    async def head(self) -> None:
        """Wait until the head has arrived.

        Raises:
            UpstreamFailed, UpstreamTimeout: there is no head. Also any error of the request body's iterator.
        """
        while not self.status:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived, `b""` at the end; wait only if nothing has that `sink` does not take."""
        pieces = self._pieces
        while not pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            if self._line is not None:
                self._line.await_more()
            self._sink = sink
            self._waiter = waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._sink = None  # it knows this reply: a cycle, in which the whole exchange would stay
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if (line := self._line) is not None and line.is_paused:
            line.resume()
        return data

    @property
    def is_awaited(self) -> bool:
        """True while a reader waits: only then can the provider be late."""
        return self._waiter is not None and not self._waiter.done()

    def close(self) -> None:
        """Drop the connection unless the answer is complete. Idempotent; never waits."""
        self._pieces.clear()
        if not self.complete:  # replaces what a sink has raised, whose frames know this reply
            self._error = failures.failed(failures.BODY_CUT)
        line, self._line = self._line, None
        if line is not None:
            line.abort()
            self._wake()

    def take_head(self, status: int, reason: str, headers: Headers, fields: Mapping[bytes, bytes]) -> None:
        """Receive the head."""
        self.status = status
        self.reason = reason
        self.headers = headers
        self.fields = fields
        self._wake()

    def take(self, piece: bytes) -> int:
        """Receive a piece of the body; return the number of unread bytes."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if (sink := self._sink) is not None:
                try:
                    if sink(piece):
                        if (line := self._line) is not None:
                            line.heard_at = self._loop.time()
                        return 0
                except Exception as error:  # it belongs to the reader, who must get nothing behind this piece
                    self.close()
                    self._error = error
                    return 0
            waiter.set_result(None)
        self._pieces.append(piece)
        self._unread += len(piece)
        return self._unread

    def end(self) -> None:
        """Receive the regular end; the connection no longer belongs to this reply."""
        self.complete = True
        self._line = None
        self._wake()

    def fail(self, error: Exception) -> None:
        """Receive a failure; the connection is gone."""
        self._error = error
        self._line = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
