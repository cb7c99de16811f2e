"""Websockets to one upstream. Loads aiohttp's client when the first one is opened, as most sidecars never need it."""

from collections.abc import Callable
from typing import Any, Final

from proxy.config import schema
from proxy.exchange import UpstreamRequest
from proxy.lazy import function
from proxy.upstream.covering import Handshake

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
        self._make: Callable[[], Any] = lambda: function(_CLIENT)(upstream, client, timeouts, max_message_bytes)
        self._client: Any = None

    async def connect(self, request: UpstreamRequest) -> Handshake:
        """Perform the handshake; a refused one is a reply without a socket. Raises as `WebsocketClient.connect`."""
        if self._client is None:
            self._client = self._make()
        reply: Handshake = await self._client.connect(request)
        return reply

    async def close(self) -> None:
        """Drop all connections."""
        if self._client is not None:
            await self._client.close()
