"""The two sides of an exchange, as the packages between them see them.

Protocols and the plain values that they exchange. The packages that speak HTTP and websockets implement them, so the
others do not depend on a library. `proxy.exchange` re-exports the same names.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.errors import ProxyError

Header = tuple[bytes, bytes]
"""Name and value exactly as received: order, case and bytes are preserved."""
Headers = Sequence[Header]


def first_values(headers: Headers) -> Mapping[bytes, bytes]:
    """Return the first value of each header by lower-case name: one pass instead of one per look-up."""
    # From the end, so that the first one stays: half the time of `setdefault` (timeit).
    return {name.lower(): value for name, value in reversed(headers)}


Sink = Callable[[bytes], bool]
"""Takes a piece of a body at once, without waiting; False: it does not, and the reader gets the piece."""


class UpstreamReply(Protocol):
    """A reply whose head has arrived. The body is read on demand: an unread body exerts back-pressure."""

    status: int
    reason: str
    headers: Headers
    fields: Mapping[bytes, bytes]
    """The first value of each header, by lower-case name."""

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return all bytes of the body that have arrived since the last call, `b""` at its end.

        `sink`: while this waits, every piece is offered to it first, in the callback of the socket, which saves waking
        a task for each; this returns what it does not take. An implementation may ignore it.

        Raises:
            UpstreamFailed: the body was truncated or is malformed.
            UpstreamTimeout: nothing arrived within the gap, or the total time is up.
            Exception: what `sink` raised.
        """

    @property
    def complete(self) -> bool:
        """True if the whole body has arrived: the next `read` returns the rest at once."""

    def close(self) -> None:
        """Reuse the connection if the body was read to its end, drop it otherwise. Idempotent; never waits."""


@dataclass(slots=True)
class UpstreamRequest:
    """What to send. `url`: absolute and already encoded, sent unchanged. `headers`: complete except for framing."""

    method: str
    url: str
    headers: Headers
    body: bytes | AsyncIterator[bytes] | None
    content_length: int | None = None
    """Known length of a streamed body; `None` sends it chunked."""
    on_sent: Callable[[], None] | None = None
    """Called just before the first byte of the request is handed to the network; again if it is sent once more."""


class Downstream(Protocol):
    """The client's side of one exchange. Asynchronous methods may wait for a slow reader, for the write-stall time.

    Raises:
        ClientDisconnected: the client has disconnected, or did not read within the write-stall time.
    """

    ended_by: ProxyError | None
    """Why we end the exchange, if we cancel it; `None`: a cancellation means that the client has disconnected."""

    async def send(self, status: int, reason: str, headers: Headers, body: bytes) -> None:
        """Send a complete response. Adds Content-Length."""

    async def start(self, status: int, reason: str, headers: Headers, length: int | None) -> None:
        """Send the head. `length`: of the following body; `None`: chunked."""

    async def write(self, data: bytes) -> None:
        """Send body bytes at once; no coalescing."""

    def put(self, data: bytes) -> bool:
        """Send body bytes at once and never wait; False: the client has not read enough, so `write` must come next."""

    async def finish(self) -> None:
        """End the body normally."""

    def cut(self) -> None:
        """Close the connection without ending the body, after flushing what was written: a visible truncation."""


MessageKind = Literal["text", "binary", "ping", "pong", "close"]


@dataclass(frozen=True, slots=True)
class Message:
    """One websocket message (fragments joined) or control frame."""

    kind: MessageKind
    data: str | bytes = b""
    """Text as `str`, else bytes; the reason of a close frame as `str`."""
    code: int | None = None
    """Close code; `None` in a close frame without one, or for an end without a close frame if `abrupt`."""
    abrupt: bool = False
    """The connection ended without a close frame."""


class WebsocketPeer(Protocol):
    """One side of a relayed websocket."""

    async def receive(self) -> Message:
        """Return the next message; there is none after one of kind `close`."""

    async def send(self, message: Message) -> None:
        """Send a message; `close` closes the connection with the other side's code and reason.

        Raises:
            ClientDisconnected, UpstreamFailed: this side has disconnected.
        """


@dataclass(slots=True)
class Capture:
    """Bounded copies of request and answer; used only if content capture is on."""

    limit_bytes: int
    request: bytes | None = None
    response: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def add(self, chunk: bytes) -> None:
        """Keep as much of `chunk` as still fits."""
        room = self.limit_bytes - len(self.response)
        if len(chunk) > room:
            self.truncated = True
            chunk = chunk[: max(room, 0)]
        self.response += chunk
