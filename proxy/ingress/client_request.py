"""A client's request as handlers see it, independent of the server that read it."""

import asyncio
from typing import Any, Protocol

from proxy.exchange import Headers, Inbound


class Content(Protocol):
    """The request's body."""

    @property
    def total_bytes(self) -> int:
        """Bytes that have arrived."""

    @property
    def is_awaited(self) -> bool:
        """Tell whether somebody waits in `readany`; nobody else may call it then."""

    def is_eof(self) -> bool:
        """Tell whether all of it has arrived."""

    def at_eof(self) -> bool:
        """Tell whether all of it was read."""

    def exception(self) -> BaseException | None:
        """Return the error that broke it, if any."""

    def read_nowait(self, _size: int = -1, /) -> bytes:
        """Return what has arrived and is unread."""

    async def readany(self) -> bytes:
        """Return what has arrived; wait only if nothing has. Raises BrokenBody."""


class Outlet(Protocol):
    """The sending half of the client's connection, for all that answers a request. As `write_batching.Outlet`."""

    @property
    def is_paused(self) -> bool:
        """True while the client does not read fast enough."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken."""

    def write(self, data: bytes, /) -> bool:
        """Write at once; False: the connection is lost or closing, and nothing was written."""

    def write_in_turn(self, data: bytes, /) -> bool:
        """Write together with what others write in this turn of the event loop; False: as above."""

    def close(self) -> None:
        """Close once everything written was sent. Idempotent."""

    def abort(self) -> None:
        """Close at once and discard what was not sent. Idempotent."""

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionError if it is gone."""


class BrokenBody(Exception):
    """The framing of a body is malformed."""


class ClientRequest(Protocol):
    """One request."""

    @property
    def method(self) -> str:
        """The method, in capitals."""

    @property
    def target(self) -> str:
        """The raw request target: never decoded, never normalised."""

    @property
    def version(self) -> tuple[int, int]:
        """The HTTP version."""

    @property
    def raw_header_lines(self) -> Headers:
        """Header lines in order, names in the client's case. Content-Length may be missing."""

    @property
    def content_length(self) -> int | None:
        """`None`: no body, or a chunked one."""

    @property
    def body_exists(self) -> bool:
        """Whether a body was announced."""

    @property
    def body(self) -> Content:
        """The body."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to keep the connection."""

    @property
    def is_upgrade(self) -> bool:
        """True for a request to upgrade to websocket."""

    @property
    def ends_connection(self) -> bool:
        """True if the connection cannot be reused, because what follows on it is ambiguous."""

    @property
    def expects_continue(self) -> bool:
        """True if the client waits for `100 Continue` before it sends the body."""

    @property
    def remote(self) -> str | None:
        """The client's address."""

    @property
    def task(self) -> "asyncio.Task[Any] | None":
        """The task that serves the connection, and so the request."""

    @property
    def outlet(self) -> Outlet:
        """Where the answer is written."""

    def recall(self, version: object) -> Inbound | None:
        """Return what a handler stored for an identical head, in the same version of the configuration."""

    def remember(self, version: object, inbound: Inbound) -> None:
        """Store what the handler derived from this head, if the server recognises repeated heads."""
