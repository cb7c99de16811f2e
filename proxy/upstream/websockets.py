"""Websockets to one upstream. Loads aiohttp's client when the first one is opened, as most sidecars never need it.

The import and the trusted certificates take 40 ms, so both are loaded on a thread.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

from proxy.config import schema
from proxy.exchange import UpstreamRequest
from proxy.process.lazy import imported
from proxy.upstream.covering import Handshake
from proxy.upstream.origin import Origin

_CLIENT: Final = "proxy.upstream.websocket:WebsocketClient"


class Websockets:
    """Opens websockets to one upstream as `websocket.WebsocketClient` does."""

    def __init__(
        self,
        upstream: schema.Upstream,
        client: schema.UpstreamClient,
        timeouts: schema.Timeouts,
        max_message_bytes: int,
    ) -> None:
        self._tls: Callable[[], ssl.SSLContext | None] = lambda: Origin.of(upstream.base_url).tls(client.ca_file)
        self._make: Callable[[Any, ssl.SSLContext | None], Any] = lambda make, tls: make(
            upstream, client, timeouts, max_message_bytes, tls
        )
        self._client: Any = None

    async def connect(self, request: UpstreamRequest) -> Handshake:
        """Perform the handshake; a refused one is a reply without a socket. Raises as `WebsocketClient.connect`."""
        if self._client is None:
            make, tls = await asyncio.get_running_loop().run_in_executor(None, lambda: (imported(_CLIENT), self._tls()))
            if self._client is None:
                self._client = self._make(make, tls)
        reply: Handshake = await self._client.connect(request)
        return reply

    async def close(self) -> None:
        """Drop all connections."""
        if self._client is not None:
            await self._client.close()
