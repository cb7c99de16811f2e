"""Batches writes: the first write in a turn of the event loop leaves at once, further ones together at the turn's end.

    read, read, read --> task: write 1 ---- task: write 2 ---- task: write 3 --> end of the turn: 2 and 3 --> read ..
                              sent at once       kept               kept

After a turn with several writes, the first one of the next turn is kept, too.

A write wakes its receiver, and on a busy machine the kernel runs that process immediately, on this core and in the
middle of our work. Batched, several writes cost one such interruption: 0.91 of the CPU of a request over 16 connections
(`bench.run`, in turns). No write waits for the network or for a timer, and that of a lone request does not wait at all.

Rule of the file: every byte to a connection passes its one `Outlet`, so nothing can overtake or lose what it keeps.
"""

import asyncio


class LoopTurn:
    """The outlets that wait for the end of the turn; belongs to the event loop in which it is first used."""

    __slots__ = ("_has_any", "_is_busy", "_loop", "_waiting")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_any = False
        """There was a write in this turn."""
        self._is_busy = False
        """There were several in the latest turn that had any."""
        self._waiting: list[Outlet] = []

    def keeps(self, outlet: "Outlet") -> bool:
        """Tell whether a write waits for the end of the turn, when `outlet` is flushed; it has company then."""
        is_first, self._has_any = not self._has_any, True
        if is_first:
            self._call_end()
            if not self._is_busy:
                return False
        self._waiting.append(outlet)
        return True

    def _call_end(self) -> None:
        if (loop := self._loop) is None:  # remembered, as every look-up asks the kernel for the process's id
            loop = self._loop = asyncio.get_running_loop()
        loop.call_soon(self._end)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._has_any = False
        self._is_busy = len(waiting) > self._is_busy  # more than one, whether the first waited or not
        for outlet in waiting:
            outlet.flush()


class Outlet:
    """The sending half of a connection, with its flow control. Its protocol tells it what the transport does.

    Not for threads. Without a connection (before `connected`, after `lost`) nothing is written and nothing raised.
    """

    __slots__ = ("_transport", "_turn", "_writable", "is_paused", "kept")

    def __init__(self, turn: LoopTurn) -> None:
        self._turn = turn
        self._transport: asyncio.Transport | None = None
        self.kept = b""
        """What waits for the end of the turn."""
        self._writable: asyncio.Future[None] | None = None
        self.is_paused = False
        """The transport holds more than its high-water mark, because the peer does not read."""

    # Called by the protocol.

    def connected(self, transport: asyncio.Transport) -> None:
        """Write to `transport` from now on."""
        self._transport = transport

    def lost(self) -> None:
        """Discard what was not written; whoever waits in `drain` gets ConnectionResetError. Idempotent."""
        self._transport = None
        self.kept = b""
        self.resume()

    def pause(self) -> None:
        """Note that the peer does not read fast enough."""
        self.is_paused = True

    def resume(self) -> None:
        """Wake those who wait in `drain`."""
        self.is_paused = False
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Called by whoever sends.

    def is_drained(self) -> bool:
        """Tell whether it is open, and the kernel has taken everything."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return not self.kept and not transport.get_write_buffer_size()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size() + len(self.kept)

    def write(self, data: bytes) -> bool:
        """Write at once, behind what waits; False: the connection is lost or closing, and nothing was written."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if self.kept:
            self.flush()
        transport.write(data)
        return True

    def write_in_turn(self, data: bytes) -> bool:
        """Do the same now, or at the end of the turn if there are other writes in it."""
        if not self._turn.keeps(self):
            return self.write(data)
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self.kept += data
        return True

    def flush(self) -> None:
        """Write what waits. Needed only before somebody else writes to the transport."""
        kept, self.kept, transport = self.kept, b"", self._transport
        if kept and transport is not None and not transport.is_closing():
            transport.write(kept)

    def close(self) -> None:
        """Close once everything written was sent. Idempotent."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once and discard what was not sent. Idempotent."""
        self.kept = b""
        if self._transport is not None:
            self._transport.abort()

    async def drain(self) -> None:
        """Wait until the peer has read enough; several may wait. Raises ConnectionResetError if it is gone."""
        if self.is_paused:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)
        if self._transport is None:
            raise ConnectionResetError("connection lost")
