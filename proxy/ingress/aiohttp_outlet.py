"""The sending half of a connection that aiohttp owns, as `asked.Outlet`.

aiohttp writes and closes on its own, too, so that nothing may wait for the end of the turn here: it could be overtaken.
"""

from aiohttp.base_protocol import BaseProtocol


class AiohttpOutlet:
    """Holds nothing but the protocol: a new one is made for each use."""

    __slots__ = ("_protocol", "write_in_turn")

    def __init__(self, protocol: BaseProtocol) -> None:
        self._protocol = protocol
        self.write_in_turn = self.write

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
