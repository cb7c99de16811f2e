"""Both directions of a connection that aiohttp owns: the request's body as `asked.Content`, and `asked.Outlet`.

aiohttp writes and closes on its own, too, so that nothing may wait for the end of the turn here: it could be overtaken.
"""

import asyncio

from aiohttp import StreamReader, http_exceptions, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

from proxy.ingress.client_request import BrokenBody
from proxy.ingress.own_answers import STALL_S


class AiohttpOutlet:
    """Holds nothing but the protocol: a new one is made for each use."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: BaseProtocol) -> None:
        self._protocol = protocol

    @property
    def is_paused(self) -> bool:
        """True while the client does not read fast enough."""
        return self._protocol.writing_paused

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken."""
        transport = self._protocol.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def write(self, data: bytes) -> bool:
        """Write at once; False: the connection is lost or closing, and nothing was written."""
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        return True

    def write_in_turn(self, data: bytes) -> bool:
        """Do the same."""
        return self.write(data)

    def close(self) -> None:
        """Close once everything written was sent. Idempotent."""
        if (transport := self._protocol.transport) is not None:
            transport.close()

    def abort(self) -> None:
        """Close at once and discard what was not sent. Idempotent."""
        if (transport := self._protocol.transport) is not None:
            transport.abort()

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionResetError if it is gone."""
        await self._protocol._drain_helper()


class Body:
    """aiohttp's reader as `asked.Content`."""

    __slots__ = ("_reader", "at_eof", "exception", "is_eof", "read_nowait")

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self.is_eof, self.at_eof, self.exception = reader.is_eof, reader.at_eof, reader.exception
        self.read_nowait = reader.read_nowait

    @property
    def total_bytes(self) -> int:
        """Bytes that have arrived."""
        return self._reader.total_bytes

    @property
    def is_awaited(self) -> bool:
        """Tell whether somebody waits in `readany`."""
        return self._reader._waiter is not None

    async def readany(self) -> bytes:
        """Return what has arrived; wait only if nothing has. Raises BrokenBody."""
        try:
            return await self._reader.readany()
        except (web.RequestPayloadError, http_exceptions.BadHttpMessage):
            raise BrokenBody from None


class BoundedWriter(StreamWriter):
    """aiohttp's writer of responses; it cuts a client that does not read for `stall_s`."""

    stall_s = STALL_S

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionResetError if it left or was cut."""
        try:
            async with asyncio.timeout(self.stall_s):
                await super().drain()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionResetError("the client did not read for too long") from None
