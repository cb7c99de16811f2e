"""A client's request as handlers see it, independent of the server that read it."""

import asyncio
from typing import Any, Protocol

from proxy.exchange import Headers, Inbound
from proxy.turn import LoopTurn


class Content(Protocol):
    """The request's body."""

    total_bytes: int

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


class BrokenBody(Exception):
    """The framing of a body is malformed."""


class Asked(Protocol):
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
    def transport(self) -> asyncio.Transport | None:
        """The connection; `None` once it is lost."""

    @property
    def protocol(self) -> Any:
        """Has `transport` and `writing_paused`."""

    @property
    def writer(self) -> Any:
        """Has `drain`."""

    @property
    def turn(self) -> LoopTurn | None:
        """Takes whole answers; `None`: they are written at once."""

    def recall(self, version: object) -> Inbound | None:
        """Return what a handler stored for an identical head, in the same version of the configuration."""

    def remember(self, version: object, inbound: Inbound) -> None:
        """Store what the handler derived from this head, if the server recognises repeated heads."""
