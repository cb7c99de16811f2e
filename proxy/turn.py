"""One turn of the event loop: a lone write leaves at once, several leave together when the turn is over.

    read, read, read --> task: write 1 ---- task: (2) ---- task: (3) --> over: write 2, 3 --> read ..
                              leaves now        kept          kept            and the next turn keeps its first, too

A write wakes whoever waits for it, and on a busy machine the kernel then runs that process at once, on this core and in
the middle of our work. Together, several writes cost one such interruption: 0.91 of the CPU of a request over 16
connections (`bench.run`, in turns). Nothing waits for the network or for a timer, and a lone request for nothing.

Rule of the file: only for the single write of a request or an answer. Whoever writes or closes the same connection
meanwhile calls `flush` before. What is given to `write` must not raise.
"""

import asyncio
from collections.abc import Callable

Write = Callable[[bytes], None]


class LoopTurn:
    """The kept writes of an event loop; belongs to the one in which it is first used."""

    __slots__ = ("_has_any", "_is_busy", "_kept", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_any = False
        """There was a write in this turn."""
        self._is_busy = False
        """There were several in the latest turn that had any."""
        self._kept: list[tuple[Write, bytes]] = []

    def write(self, write: Write, data: bytes) -> None:
        """Call `write` with `data` now, or at the end of the turn if there are other writes in it."""
        is_first, self._has_any = not self._has_any, True
        if is_first:
            self._call_end()
        if is_first and not self._is_busy:
            write(data)
        else:
            self._kept.append((write, data))

    def flush(self) -> None:
        """Write now what was kept, in order."""
        if self._kept:
            kept, self._kept = self._kept, []
            for write, data in kept:
                write(data)

    def _call_end(self) -> None:
        if (loop := self._loop) is None:  # remembered, as every look-up asks the kernel for the process's id
            loop = self._loop = asyncio.get_running_loop()
        loop.call_soon(self._end)

    def _end(self) -> None:
        self._has_any = False
        self._is_busy = len(self._kept) > self._is_busy  # more than one, whether the first was kept or not
        self.flush()
