"""The two sides of an exchange, as the packages between them see them: what may be read from and written to each.

Protocols and the plain values that pass through them. The packages that speak HTTP and websockets fulfil them, so no
other has to know a library. `proxy.exchange` offers the same names.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from proxy.errors import ProxyError

Header = tuple[bytes, bytes]
"""Name and value as they stood on the wire: order, case and bytes are kept."""
Headers = Sequence[Header]


def first_values(headers: Headers) -> dict[bytes, bytes]:
    """Return the first value of each header by its lower-case name: one pass instead of one per question."""
    # From the end, so that the first one stays: half the time of `setdefault` (timeit).
    return {name.lower(): value for name, value in reversed(headers)}


class UpstreamReply(Protocol):
    """An answer whose head has arrived. The body is read on demand: an unread body holds the provider back."""

    status: int
    reason: str
    headers: Headers

    async def read(self) -> bytes:
        """Return all bytes of the body that have arrived since the last call, `b""` at its end.

        Raises:
            UpstreamFailed: the body was cut or is malformed.
            UpstreamTimeout: nothing arrived within the gap, or the total time is over.
        """

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived: what `read` has not returned yet, its next call does."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, drop it otherwise. Idempotent; never waits."""


@dataclass(slots=True)
class UpstreamRequest:
    """What to send. `url`: absolute, already encoded, sent as it is. `headers`: complete but for framing."""

    method: str
    url: str
    headers: Headers
    body: bytes | AsyncIterator[bytes] | None
    content_length: int | None = None
    """Known length of a streamed body; `None` sends it chunked."""
    on_sent: Callable[[], None] | None = None
    """Called once, just before the first byte of the request is handed to the network."""


class Downstream(Protocol):
    """The client's side of one exchange. Every method may wait for a slow reader, never longer than the write stall.

    Raises:
        ClientDisconnected: the client is gone, or did not read within the write-stall time.
    """

    ended_by: ProxyError | None
    """Why we end the exchange: a cancellation that comes now is ours. `None`: it means that the client has left."""

    async def send(self, status: int, reason: str, headers: Headers, body: bytes) -> None:
        """Send a whole answer at once. Adds Content-Length."""

    async def start(self, status: int, reason: str, headers: Headers, length: int | None) -> None:
        """Send the head. `length`: of the body to come; `None`: chunked."""

    async def write(self, data: bytes) -> None:
        """Send body bytes at once; no coalescing."""

    async def finish(self) -> None:
        """End the body normally."""

    def cut(self) -> None:
        """End the connection without ending the body, after what was written has left: a visible truncation."""


@dataclass(frozen=True, slots=True)
class Message:
    """One websocket message (fragments joined) or control frame."""

    kind: Literal["text", "binary", "ping", "pong", "close"]
    data: str | bytes = b""
    """Text as `str`, else bytes; the reason of a close frame as `str`."""
    code: int | None = None
    """Close code; `None` in a close frame without one, or for an end without a close frame if `abrupt`."""
    abrupt: bool = False
    """The connection ended without a close frame."""


class WebsocketPeer(Protocol):
    """One side of a relayed websocket."""

    async def receive(self) -> Message:
        """Return the next message; after a message of kind `close` there is none."""

    async def send(self, message: Message) -> None:
        """Pass a message on; `close` ends the connection the way the other side ended it.

        Raises:
            ClientDisconnected, UpstreamFailed: this side is gone.
        """
