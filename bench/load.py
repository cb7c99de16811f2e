"""The load: bare connections that count answers and time them, light enough not to disturb what they measure.

Rules of the file: one `asyncio.Protocol` per connection, one future per request, no HTTP library. Bodies are not kept;
an answer is whole by its Content-Length or by the last chunk's mark. A cut, an error status or a stream with too few
events raises: a benchmark of failures would be fast.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import cast

from bench.upstream import EVENTS

Address = tuple[str, int]


_PROSE = "Explain what a reverse proxy does, and why an application would want one."


def chat_request(address: Address, stream: bool, ask_usage: bool = False, more: int = 0) -> bytes:
    """A usual chat request as an SDK sends it. `more`: bytes of further prose."""
    document: dict[str, object] = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that answers in one short paragraph."},
            {"role": "user", "content": _PROSE + f" {_PROSE}" * (more // len(_PROSE))},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if stream:
        document["stream"] = True
        if ask_usage:
            document["stream_options"] = {"include_usage": True}
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: {address[0]}:{address[1]}\r\n"
        "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
        "User-Agent: OpenAI/Python 2.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.54.0\r\n"
        "X-Stainless-Retry-Count: 0\r\nAuthorization: Bearer sk-of-the-client\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[int] | None = None
        self._head = b""
        self._missing: int | None = None
        self._tail = b""
        self._events = 0
        self.idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError("cut in the middle of an answer"))

    def ask(self, data: bytes) -> asyncio.Future[int]:
        """Send a request; the future's value is the number of stream events, 0 for a plain answer."""
        self._done = asyncio.get_running_loop().create_future()
        self._head, self._missing, self._tail, self._events = b"", None, b"", 0
        self.idle = False
        self.transport.write(data)
        return self._done

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._head += data
            at = self._head.find(b"\r\n\r\n")
            if at < 0:
                return
            data = self._read_head(self._head[:at], self._head[at + 4 :])
        if self._missing == -1:
            self._events += (self._tail[-1:] + data).count(b"\n\n")
            self._tail = (self._tail + data)[-7:]
            if self._tail == b"\r\n0\r\n\r\n":
                self._finish(self._events)
        elif self._missing is not None:
            self._missing -= len(data)
            if self._missing == 0:
                self._finish(0)

    def _read_head(self, head: bytes, rest: bytes) -> bytes:
        if not head.startswith(b"HTTP/1.1 200 "):
            self._fail(f"answer: {head[:80]!r} {rest[:200]!r}")
        lower = head.lower()
        mark = lower.find(b"content-length:")
        self._missing = int(lower[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else -1
        return rest

    def _finish(self, events: int) -> None:
        if self._missing == -1 and events < EVENTS:
            self._fail(f"only {events} events")
        self.idle = True
        if self._done and not self._done.done():
            self._done.set_result(events)

    def _fail(self, why: str) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(RuntimeError(why))


async def open_connections(address: Address, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, *address))[1] for _ in range(count)]


def close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.transport.close()


async def closed_loop(address: Address, connections: int, requests: int) -> None:
    """Send `requests` plain requests over `connections` connections, each as soon as the one before is answered."""
    opened = await open_connections(address, connections)
    data = chat_request(address, stream=False)

    async def work(connection: Connection) -> None:
        for _ in range(requests // connections):
            await connection.ask(data)

    await asyncio.gather(*map(work, opened))
    close_all(opened)


async def streams(address: Address, count: int, ask_usage: bool) -> None:
    """Read `count` streams at once, each to its end."""
    opened = await open_connections(address, count)
    data = chat_request(address, stream=True, ask_usage=ask_usage)
    await asyncio.gather(*(connection.ask(data) for connection in opened))
    close_all(opened)


@dataclass
class Pacer:
    """Plain requests to one address at a fixed rate, whatever the answers do; latencies in seconds.

    A slow answer never delays the next request: it gets another connection.
    """

    address: Address
    latencies: list[float]

    async def run(self, per_second: int, seconds: float, offset_s: float) -> None:
        pool: list[Connection] = await open_connections(self.address, 8)
        data = chat_request(self.address, stream=False)
        pending = set()
        start = time.perf_counter() + offset_s
        for index in range(int(per_second * seconds)):
            due = start + index / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if not any(one.idle for one in pool):
                pool += await open_connections(self.address, 1)
            task = asyncio.ensure_future(self._timed(next(one for one in pool if one.idle), data))
            pending.add(task)
            task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)
        close_all(pool)

    async def _timed(self, connection: Connection, data: bytes) -> None:
        since = time.perf_counter()
        await connection.ask(data)
        self.latencies.append(time.perf_counter() - since)
