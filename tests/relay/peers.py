"""The two ends of a relay, scripted: an answer in given pieces, and a client that notes what reached it and when.

Both go through the Protocols of `proxy.exchange`; `journal` is the common order of events, so that a test can tell
what came first: the record or the byte.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from proxy.errors import ClientDisconnected, ProxyError, QuotaExceeded
from proxy.exchange import (
    Allowance,
    Attempt,
    Candidate,
    Capture,
    Delivery,
    Dialect,
    Header,
    Headers,
    Message,
    Meter,
    first_values,
)
from proxy.nouns.scanners import OutputScanner
from proxy.relay.answer import Answer, AtLimit

Step = bytes | Exception | asyncio.Event
"""What comes next from a provider: bytes, a failure, or silence until an event is set."""

STREAM = (b"Content-Type", b"text/event-stream; charset=utf-8")
JSON = (b"Content-Type", b"application/json")


class Reply:
    """`exchange.UpstreamReply` over a script. `at_once`: all of it has arrived already.

    `offers`: False for one that ignores its reader's sink. `joins`: how many of the next pieces come together with one
    that the sink refuses, as from a busy socket.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        headers: Headers = (),
        *,
        status: int = 200,
        at_once: bool = False,
        offers: bool = True,
        joins: int = 0,
    ):
        self.status = status
        self.reason = "OK"
        self.headers = headers
        self.fields = first_values(headers)
        self.closed = False
        self._steps = list(steps)
        self._at_once = at_once
        self._offers = offers
        self._joins = joins

    async def read(self, sink=None) -> bytes:
        if self._at_once:
            everything, self._steps = self._steps, []
            return b"".join(step for step in everything if isinstance(step, bytes))
        while self._steps:
            step = self._steps[0]
            if isinstance(step, asyncio.Event):
                await step.wait()
                del self._steps[0]
                continue
            del self._steps[0]
            if isinstance(step, Exception):
                raise step
            await asyncio.sleep(0)
            if sink is not None and self._offers and sink(step):
                continue
            joined = self._steps[: self._joins if sink is not None and self._offers else 0]
            del self._steps[: len(joined)]
            return step + b"".join(piece for piece in joined if isinstance(piece, bytes))
        return b""

    @property
    def complete(self) -> bool:
        return self._at_once

    def close(self) -> None:
        self.closed = True


class Client:
    """`exchange.Downstream` that keeps everything. `leaves_after`: bytes of body after which the client is gone.

    `is_slow`: it has never read enough.
    """

    def __init__(
        self, leaves_after: int | None = None, delivery: Delivery | None = None, *, is_slow: bool = False
    ) -> None:
        self.ended_by: ProxyError | None = None
        self.delivery = delivery or Delivery()
        self.journal: list[str] = []
        """`head`, `byte`, `seal`, `end`, `cut` in the order in which they came; equal neighbours once."""
        self.status: int | None = None
        self.headers: Headers = ()
        self.length: int | None = None
        self.pieces: list[bytes] = []
        self.kept: bytes | None = None
        """What had been captured when the record was made."""
        self.put_count = 0
        """How many pieces were put, without waiting."""
        self._leaves_after = leaves_after
        self._is_slow = is_slow
        self._must_wait = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def note(self, event: str) -> None:
        if not self.journal or self.journal[-1] != event:
            self.journal.append(event)

    async def send(self, status: int, reason: str, headers: Headers, body: bytes) -> None:
        await self.start(status, reason, headers, len(body))
        await self.write(body)
        await self.finish()

    async def start(self, status: int, reason: str, headers: Headers, length: int | None) -> None:
        self.status, self.headers, self.length = status, headers, length
        self.delivery.status, self.delivery.committed_at = status, time.monotonic()
        self.note("head")

    def put(self, data: bytes) -> bool:
        assert not self._must_wait, "put before the client has read enough"
        self.put_count += 1
        self._take(data)
        self._must_wait = self._is_slow
        return not self._is_slow

    async def write(self, data: bytes) -> None:
        if data:
            self._take(data)
        await asyncio.sleep(0)
        self._must_wait = False

    def _take(self, data: bytes) -> None:
        self.pieces.append(data)
        self.delivery.bytes += len(data)
        self.note("byte")
        if self._leaves_after is not None and len(self.body) >= self._leaves_after:
            raise ClientDisconnected("gone")

    async def finish(self) -> None:
        self.note("end")

    def cut(self) -> None:
        self.note("cut")


class Allowed:
    """`exchange.Allowance` over bytes of text: `more` is what each extension grants, until there is none."""

    def __init__(self, text_bytes: int, *more: int, wait: asyncio.Event | None = None) -> None:
        self.error: ProxyError | None = None
        self.asked: list[int] = []
        """Bytes of text at each extension."""
        self._text_bytes = text_bytes
        self._more = list(more)
        self._wait = wait

    def covers(self, meter: Meter) -> bool:
        return meter.output_text_bytes <= self._text_bytes

    async def extend(self, meter: Meter) -> bool:
        self.asked.append(meter.output_text_bytes)
        if self._wait is not None:
            await self._wait.wait()
        while self._more and not self.covers(meter):
            self._text_bytes += self._more.pop(0)
        self.error = None if self.covers(meter) else QuotaExceeded("Nothing is left.")
        return self.error is None


def answer_to(
    client: Client,
    reply: Reply,
    *,
    dialect: Dialect = "chat",
    strip_usage: bool = False,
    is_head: bool = False,
    capture: Capture | None = None,
    allowance: Allowance | None = None,
    at_limit: AtLimit = "finish",
    asked_for_usage: bool = False,
    scanner: OutputScanner | None = None,
) -> Answer:
    """Return the answer of `reply`, whose seal is noted at `client`."""

    def seal() -> None:
        client.note("seal")
        if client.kept is None and capture is not None:
            client.kept = bytes(capture.response)

    attempt = Attempt(0, Candidate("default", "gpt-4o"), 0.0, sent=True, status=reply.status)
    return Answer(
        reply,
        tuple(reply.headers),
        attempt,
        dialect=dialect,
        strip_usage=strip_usage,
        is_head=is_head,
        seal=seal,
        capture=capture,
        allowance=allowance,
        at_limit=at_limit,
        asked_for_usage=asked_for_usage,
        scanner=scanner,
    )


def announced(body: bytes) -> Header:
    return (b"Content-Length", b"%d" % len(body))


def cuts(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return `data` cut at `places`, without empty pieces."""
    edges = sorted({place for place in places if 0 < place < len(data)})
    return [data[begin:end] for begin, end in zip([0, *edges], [*edges, len(data)], strict=True) if begin < end]


class Socket:
    """`exchange.WebsocketPeer`: hands out `messages`, then answers a close frame with itself; keeps what it was sent.

    `waits`: says nothing before it was sent a close frame. `answers`: False for a peer that only listens at the end.
    """

    def __init__(
        self,
        *messages: Message | Exception,
        on_send: Callable[[Message], None] | None = None,
        waits: bool = False,
        answers: bool = True,
    ) -> None:
        self.sent: list[Message] = []
        self._messages = list(messages)
        self._on_send = on_send
        self._waits = waits
        self._answers = answers
        self._closed = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self._waits or not self._messages:
            await self._closed.wait()
        if not self._messages and not self._answers:
            await asyncio.Event().wait()
        message = self._messages.pop(0) if self._messages else self.sent[-1]
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message) -> None:
        if self._on_send is not None:
            self._on_send(message)
        self.sent.append(message)
        if message.kind == "close":
            self._closed.set()
        await asyncio.sleep(0)
