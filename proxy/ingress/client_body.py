"""The request's body as the client sends it, with limits on size, idle time and rate.

A body that arrives together with its head needs no timer; a slow one is watched. Small bodies are read whole, uploads
are streamed and never buffered.

Failure mode: every client error is `InvalidRequest` (400, 408, 413); if the client disconnects, the task is cancelled.
Source: RFC 9110 sections 10.1.1 (Expect) and 15.5.9 (408); RFC 9112 section 6.3.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.event_loop.off_loop import joined
from proxy.ingress.client_request import BrokenBody, ClientRequest, Content
from proxy.phases.intake import too_large

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientBody:
    """One request's body; can be read once, by `read` or by `stream`."""

    def __init__(self, request: ClientRequest, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._began = time.monotonic()

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            InvalidRequest: 413 above `limit_bytes`, 408 if the client is too slow, 400 if the framing is broken.
        """
        content = self._request.body
        if content.is_eof() and content.exception() is None and content.total_bytes <= limit_bytes:
            return content.read_nowait(-1)
        return await joined([piece async for piece in self.stream(limit_bytes)])

    async def stream(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises as `read`."""
        announced = self._request.content_length
        if announced is not None and announced > limit_bytes:
            raise too_large(limit_bytes)
        self._send_continue()
        content, total = self._request.body, 0
        while not content.at_eof():
            piece = await self._next(content)
            total += len(piece)
            if total > limit_bytes:
                raise too_large(limit_bytes)
            self._check_rate(total)
            if piece:
                yield piece

    async def _next(self, content: Content) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_idle_s):
                return await content.readany()
        except TimeoutError:
            raise InvalidRequest(
                f"No byte of the request body arrived for {self._limits.body_idle_s:g} s.",
                status=408,
                code="request_timeout",
            ) from None
        except BrokenBody:
            raise InvalidRequest("The framing of the request body is broken.", code="invalid_body") from None

    def _check_rate(self, total: int) -> None:
        elapsed = time.monotonic() - self._began
        if elapsed > self._limits.body_idle_s and total < elapsed * self._limits.body_min_bytes_per_s:
            raise InvalidRequest(
                f"The request body arrives slower than {self._limits.body_min_bytes_per_s} bytes per second.",
                status=408,
                code="request_timeout",
            )

    def _send_continue(self) -> None:
        if self._request.expects_continue:
            self._request.outlet.write(_CONTINUE)
