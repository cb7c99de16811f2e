"""The body of a plain request: the announced number of bytes, consumed as they arrive.

It implements `asked.Content`. More than `_READ_AHEAD` unread bytes pause the socket; reading resumes it. If the client
disconnects, the request's task is cancelled, so no reader waits for ever.
"""

import asyncio
from typing import Final, Protocol

_READ_AHEAD: Final = 65_536


class Line(Protocol):
    """The part of its connection that a body needs."""

    def pause_reading(self) -> None:
        """Pause reading from the client."""

    def resume_reading(self) -> None:
        """Resume reading from the client."""


class LeanBody:
    """`first`: what arrived together with the head, at most `length` bytes."""

    __slots__ = ("_line", "_missing", "_pieces", "_unread", "_waiter", "total_bytes")

    def __init__(self, line: Line, length: int, first: bytes) -> None:
        self._line = line
        self._missing = length - len(first)
        self._pieces = [first] if first else []
        self._unread = self.total_bytes = len(first)
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; return the rest."""
        surplus = b""
        if len(data) > self._missing:
            data, surplus = data[: self._missing], data[self._missing :]
        self._missing -= len(data)
        self._pieces.append(data)
        self._unread += len(data)
        self.total_bytes += len(data)
        if self._unread > _READ_AHEAD and self._missing:
            self._line.pause_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return surplus

    @property
    def is_awaited(self) -> bool:
        """Tell whether somebody waits in `readany`."""
        return self._waiter is not None

    def is_eof(self) -> bool:
        """Tell whether all of it has arrived."""
        return not self._missing

    def at_eof(self) -> bool:
        """Tell whether all of it was read."""
        return not self._missing and not self._pieces

    def exception(self) -> BaseException | None:
        """Return no error: counted bytes cannot be malformed."""
        return None

    def read_nowait(self, _size: int = -1) -> bytes:
        """Return what has arrived and is unread."""
        pieces, self._pieces = self._pieces, []
        self._unread = 0
        self._line.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def readany(self) -> bytes:
        """Return what has arrived; wait only if nothing has and more will come."""
        if not self._pieces and self._missing:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.read_nowait()
