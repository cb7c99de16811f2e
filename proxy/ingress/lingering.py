"""Reads on after an answer that was sent before the request had ended, so that the client can receive it.

Many clients send their whole request before they read anything. If the connection were closed meanwhile, they would get
a reset, and most would lose the answer. What arrives in this time is dropped.

Rule of the file: a body has one reader. The task that passed the body to the provider is cancelled by the answer, but
may not have noticed yet when a short answer is already sent; only after that is the body read here. Connections that
are still waiting for an answer have priority: at the limit of connections, the one read here for longest is closed.

Source: RFC 9112 section 9.6 (tear-down); the times are those of nginx (`lingering_timeout`, `lingering_time`).
"""

import asyncio
from contextlib import suppress
from typing import Final

from proxy.ingress.client_request import BrokenBody, Content

_PAUSE_S: Final = 5.0
"""A client that sends nothing for so long does not wait for room."""
_MOST_S: Final = 30.0
_LET_GO_S: Final = 0.001


class Lingering:
    """The requests of one server that are read on. They keep no other client out: `give_way` ends the oldest."""

    def __init__(self) -> None:
        self._limits: dict[asyncio.Timeout, None] = {}
        """Oldest first."""

    async def linger(self, content: Content) -> None:
        """Read the rest of a body, as long as it comes and there is room for the connection."""
        with suppress(TimeoutError, BrokenBody):
            async with asyncio.timeout(_MOST_S) as limit:
                self._limits[limit] = None
                try:
                    await _read_on(content)
                finally:
                    self._limits.pop(limit, None)

    def give_way(self) -> bool:
        """End the oldest one, so that its connection is closed in a moment; tell whether there was one."""
        for limit in self._limits:
            del self._limits[limit]
            if not limit.expired():  # otherwise it ends by itself, in this turn of the loop
                limit.reschedule(0)
            return True
        return False


async def _read_on(content: Content) -> None:
    while content.is_awaited:  # noqa: ASYNC110 - for one turn of the loop; no body needs an event for that
        await asyncio.sleep(_LET_GO_S)
    while not content.is_eof():
        async with asyncio.timeout(_PAUSE_S):
            await content.readany()
