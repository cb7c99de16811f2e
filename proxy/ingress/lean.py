"""The server of a port: plain requests use a lean protocol of our own, all others aiohttp's hardened one (`listener`).

    connection --> LeanConnection --plain--> handler
                        '--anything else: websocket, chunks, the management API, malformed--> SafeServer --> handler

Why two: aiohttp supports everything, but takes a tenth of the CPU of a relayed request, a fifth of the start time and
11 MB of memory. A sidecar rarely needs it, so it is loaded on a thread when the first such request arrives, while
others are served. `server.kind: aiohttp` uses it for every connection. The management API takes two thirds as long to
import again: only its own requests wait for that.

Failure mode: a connection above the limit gets one 503 and is closed, whichever protocol serves the others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.config.schema import Limits
from proxy.errors import Overloaded, ProxyError
from proxy.event_loop.write_batching import LoopTurn
from proxy.ingress.lean_connection import LeanConnection
from proxy.ingress.lingering import Lingering
from proxy.ingress.own_answers import raw_answer
from proxy.process.lazy import imported

_LISTENER = "proxy.ingress.listener:SafeServer"


class LeanServer:
    """Creates one `LeanConnection` per connection.

    `is_elsewhere`: targets that aiohttp's protocol serves. `loads`: what its handler imports for them, `module:name`.
    `turn`: the one of the upstream clients, so that requests and answers leave together.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Any]],
        limits: Limits,
        keepalive_s: float,
        on_error: Callable[[ProxyError], None],
        *,
        is_elsewhere: Callable[[str], bool] = lambda _target: False,
        loads: str | None = None,
        turn: LoopTurn | None = None,
    ) -> None:
        self.handler = handler
        self.turn = turn or LoopTurn()
        self.lingering = Lingering()
        self.is_elsewhere = is_elsewhere
        self._on_error = on_error
        self._connections: set[LeanConnection] = set()
        self._loads = loads
        self._loading: asyncio.Future[Any] | None = None
        """The import of `loads`, once it began."""
        self._other: Any = None
        """aiohttp's server, once it is loaded."""
        self._moves: set[asyncio.Task[None]] = set()
        self.follow(limits, keepalive_s)

    def follow(self, limits: Limits, keepalive_s: float) -> None:
        """Apply changed settings."""
        self._limits = limits
        self.keepalive_s = keepalive_s
        self.line_bytes = limits.header_line_bytes
        self.lines = limits.headers
        if self._other is not None:
            self._other.follow(limits, keepalive_s)

    def __call__(self) -> LeanConnection:
        """Return the protocol of a new connection."""
        return LeanConnection(self, asyncio.get_running_loop())

    @property
    def connections(self) -> list[Any]:
        """Every open connection, of either protocol."""
        return [*self._connections, *(self._other.connections if self._other is not None else ())]

    def admit(self, connection: LeanConnection) -> bool:
        """Count a new connection; False: it exceeds the limit and was refused."""
        others = 0 if self._other is None else len(self._other.connections)
        is_full = len(self._connections) + len(self._moves) + others >= self._limits.connections
        if is_full and not self._gives_way():
            error = Overloaded(
                f"Too many connections: the limit is {self._limits.connections}.",
                code="too_many_connections",
                retry_after_s=1.0,
            )
            self._on_error(error)
            connection.outlet.write(raw_answer(error))
            return False
        self._connections.add(connection)
        return True

    def _gives_way(self) -> bool:
        return self.lingering.give_way() or (self._other is not None and self._other.lingering.give_way())

    def forget(self, connection: LeanConnection) -> None:
        """Stop counting it. Idempotent."""
        self._connections.discard(connection)

    def hand_over(self, transport: asyncio.Transport, data: bytes, *, is_elsewhere: bool) -> None:
        """Transfer a connection to aiohttp's protocol, with the bytes read so far.

        `is_elsewhere`: they are known to be a request for one of its targets.
        """
        if self._other is not None and not (is_elsewhere and self._loading and not self._loading.done()):
            self._move(transport, data)
            return
        transport.pause_reading()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._load_and_move(transport, data, is_elsewhere), name="load aiohttp")
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    def pre_shutdown(self) -> None:
        """Close idle connections."""
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()
        if self._other is not None:
            self._other.pre_shutdown()

    async def shutdown(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for running requests, then close every connection."""
        for move in list(self._moves):
            move.cancel()
        running = [one.task for one in self._connections if one.task is not None and not one.is_idle]
        if running:
            await asyncio.wait(running, timeout=timeout_s)
        tasks = [one.task for one in self._connections if one.task is not None]
        for connection in list(self._connections):
            if connection.task is not None:
                connection.task.cancel()
            connection.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._other is not None:
            await self._other.shutdown(timeout_s)

    async def _load_and_move(self, transport: asyncio.Transport, data: bytes, is_elsewhere: bool) -> None:
        loop = asyncio.get_running_loop()
        make = await loop.run_in_executor(None, imported, _LISTENER)
        # Imported in any case, or a later request on a connection of aiohttp's would do it in the event loop.
        if self._loading is None and self._loads is not None:
            self._loading = loop.run_in_executor(None, imported, self._loads)
        if is_elsewhere and self._loading is not None:
            await self._loading
        if self._other is None:
            self._other = make(self.handler, self._limits, self.keepalive_s, self._on_error)
        if not transport.is_closing():
            self._move(transport, data)
            transport.resume_reading()

    def _move(self, transport: asyncio.Transport, data: bytes) -> None:
        protocol = self._other()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)
