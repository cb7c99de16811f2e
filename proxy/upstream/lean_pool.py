"""The connections to one upstream: reuse, a limit, a queue, and no leaks.

Rule of the file: `_open` counts slots, not sockets: a slot is taken before dialling and released when the connection is
lost, or passed to the first in the queue. So `_open` never exceeds the limit, the queue is first come, first served,
and a waiter that is cancelled just as it is served passes its slot on. Idle connections are reused last in, first out,
so surplus connections after a burst age at the other end and are closed there.

A connection that the provider closed, or that received anything while idle, has left the idle list before it can be
picked (`connection_lost`); a close known only to the kernel is detected by polling the descriptor.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.upstream import failures
from proxy.upstream.lean_connection import Connection
from proxy.upstream.stats import ClientStats

_RESTED_S: Final = 0.05
"""If idle for less, the event loop cannot have missed a close; polling costs 2 us."""


class Pool:
    """`make`: a new, unconnected connection; `dial`: connect it within a number of seconds."""

    def __init__(
        self,
        make: Callable[[], Connection],
        dial: Callable[[Connection, float], Awaitable[None]],
        *,
        max_connections: int,
        idle_s: float,
        pool_s: float,
        connect_s: float,
    ) -> None:
        self._make = make
        self._dial = dial
        self._max = max_connections
        self._idle_s = idle_s
        self._pool_s = pool_s
        self._connect_s = connect_s
        self._open = 0
        self._idle: deque[Connection] = deque()
        self._live: set[Connection] = set()
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all_lost = asyncio.Event()

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""
        return ClientStats(open=self._open, idle=len(self._idle), waiting=len(self._queue))

    def now(self) -> float:
        """Return `loop.time()` of the event loop in which the pool is used."""
        if (loop := self._loop) is None:  # remembered, as every look-up asks the kernel for the process's id
            loop = self._loop = asyncio.get_running_loop()
        return loop.time()

    async def acquire(self, total_at: float, *, is_fresh: bool = False) -> Connection:
        """Return a connection that is ready for a request. `total_at`: deadline of the whole exchange.

        `is_fresh`: a new one, or one that has just answered, but none that was idle.

        Raises:
            NoUpstreamAvailable: none became free in time.
            UpstreamFailed, UpstreamTimeout, Overloaded: none could be opened.
        """
        while True:
            if not is_fresh and (idle := self.pick_idle()) is not None:
                return idle
            if self._open < self._max and not self._closed:
                self._open += 1
                return await self._connect(total_at)
            if is_fresh and self._idle:
                self._idle.popleft().abort()  # its slot is the first that is free
            connection = await self._queue_up(total_at)
            if connection is None:
                return await self._connect(total_at)
            if connection.is_open():
                return connection

    def release(self, connection: Connection) -> None:
        """Take back a connection that can be reused."""
        if self._closed:
            connection.abort()
        elif not self._serve_next(connection):
            connection.idle_since = self.now()
            self._idle.append(connection)
            if self._sweeper is None:
                self._arm_sweeper(connection.idle_since + self._idle_s)

    def lost(self, connection: Connection) -> None:
        """Handle a connection whose socket is closed, or was never opened. Idempotent."""
        if connection in self._live:
            self._live.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._give_up_slot()

    async def close(self) -> None:
        """Drop every connection, fail every waiter, and wait until the sockets are closed."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_exception(failures.shutting_down())
        for connection in list(self._live):
            connection.drop()
        if self._live:
            await self._all_lost.wait()

    def pick_idle(self) -> Connection | None:
        """Return a connection that is ready for a request, if there is one: without `acquire`, which may wait."""
        while self._idle:
            connection = self._idle.pop()
            rested_s = self.now() - connection.idle_since
            if connection.is_open() and rested_s < self._idle_s and (rested_s < _RESTED_S or connection.is_silent()):
                return connection
            connection.abort()
        return None

    async def _connect(self, total_at: float) -> Connection:
        """Open a connection in a slot that is already counted."""
        connection = self._make()
        self._live.add(connection)
        left_s = total_at - self.now()
        try:
            await self._dial(connection, min(self._connect_s, left_s))
        except BaseException:
            # uvloop closes a socket that it abandons, even a connected one, without calling `connection_lost`.
            connection.abort()
            connection.connection_lost(None)
            raise
        if self._closed:
            connection.abort()  # releases the slot
            raise failures.shutting_down()
        if not connection.is_open():  # closed while `dial` returned
            self.lost(connection)
            raise failures.failed(failures.CLOSED, sent=False)
        return connection

    async def _queue_up(self, total_at: float) -> Connection | None:
        """Wait for a connection, or for a slot to open one (`None`)."""
        if self._closed:
            raise failures.shutting_down()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout_at(min(loop.time() + self._pool_s, total_at)):
                return await waiter
        except TimeoutError as error:
            self._pass_on(waiter)
            raise failures.pool_timed_out() from error
        except BaseException:
            self._pass_on(waiter)
            raise

    def _pass_on(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Leave the queue; a slot or connection received at the same moment is passed on."""
        if waiter in self._queue:
            self._queue.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            gift = waiter.result()
            if gift is None:
                self._give_up_slot()
            elif gift.is_open():
                self.release(gift)

    def _serve_next(self, gift: Connection | None) -> bool:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(gift)
                return True
        return False

    def _give_up_slot(self) -> None:
        if not self._serve_next(None):
            self._open -= 1
        if self._closed and not self._live:
            self._all_lost.set()

    def _arm_sweeper(self, at: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(at, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest comes first."""
        self._sweeper = None
        now = self.now()
        while self._idle and self._idle[0].idle_since + self._idle_s <= now:
            self._idle.popleft().abort()
        if self._idle:
            self._arm_sweeper(self._idle[0].idle_since + self._idle_s)
