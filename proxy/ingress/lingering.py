"""Reads on after an answer that came before the end of the request, so that its client gets to see it.

Many clients send everything before they read anything. If the connection were closed meanwhile, they would be told of
a reset and most would lose the answer. What arrives is dropped.

Rule of the file: a body has one reader. The task that passed it to the provider is cancelled by the answer, but has not
noticed yet when a short one is already sent; only then is it read here.

Source: RFC 9112 section 9.6 (tear-down); the times are those of nginx (`lingering_timeout`, `lingering_time`).
"""

import asyncio
from contextlib import suppress
from typing import Final

from proxy.ingress.asked import BrokenBody, Content

_PAUSE_S: Final = 5.0
"""A client that sends nothing for so long does not wait for room."""
_MOST_S: Final = 30.0
_LET_GO_S: Final = 0.001


async def linger(content: Content) -> None:
    """Read the rest of a body, as long as it comes."""
    with suppress(TimeoutError, BrokenBody):
        async with asyncio.timeout(_MOST_S):
            while content.is_awaited:  # noqa: ASYNC110 - for one turn of the loop; no body needs an event for that
                await asyncio.sleep(_LET_GO_S)
            while not content.is_eof():
                async with asyncio.timeout(_PAUSE_S):
                    await content.readany()
