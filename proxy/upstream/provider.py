"""One configured provider: turns an exchange's request into bytes for it, with its credential instead of the client's.

The URL is the configured base plus what followed `/v1` in the client's raw target: no decoding, no joining, no
normalising, so the client cannot reach another host or path prefix.
"""

from collections.abc import AsyncIterator

from proxy.config.schema import Upstream
from proxy.credentials import secrets_in
from proxy.exchange import Attempt, Headers, Inbound, UpstreamReply, UpstreamRequest
from proxy.upstream.client import Client
from proxy.upstream.covering import CoveredHandshake, CoveredReply
from proxy.upstream.headers import names_credential, request_headers, response_headers
from proxy.upstream.stats import ClientStats
from proxy.upstream.websocket import WebsocketClient

_PREFIX_LENGTH = len("/v1")


class Provider:
    """Sends attempts to one upstream."""

    def __init__(self, settings: Upstream, client: Client, websockets: WebsocketClient) -> None:
        key = settings.api_key.get_secret_value().encode() if settings.api_key is not None else None
        self.name = settings.name
        self.force_stream_usage = settings.force_stream_usage
        self._base_url = settings.base_url
        self._authorization = None if key is None else b"Bearer " + key
        self._extra = tuple((name.encode(), value.encode()) for name, value in settings.headers.items())
        given = [value for name, value in self._extra if names_credential(name)]
        self.secrets = secrets_in(given if key is None else [*given, key])
        """What the provider is sent and nobody else may see: the key, and configured fields that carry one."""
        self._client = client
        self._websockets = websockets

    def url(self, inbound: Inbound) -> str:
        """Return the absolute URL for the client's target."""
        return self._base_url + inbound.target[_PREFIX_LENGTH:]

    def request_headers(self, inbound: Inbound) -> Headers:
        """Return what the provider may see of the client's headers, with the provider's credential."""
        return request_headers(inbound.headers, authorization=self._authorization, extra=self._extra)

    def response_headers(self, reply: UpstreamReply) -> Headers:
        """Return what the client may see of the provider's headers."""
        return response_headers(reply.headers, secrets=self.secrets)

    async def send(
        self, attempt: Attempt, inbound: Inbound, body: bytes | AsyncIterator[bytes] | None
    ) -> UpstreamReply:
        """Send and return the head of the answer. Raises as `Client.send`."""
        reply = await self._client.send(self._request(attempt, inbound, body))
        return CoveredReply(reply, self.secrets) if self.secrets else reply

    async def connect(self, attempt: Attempt, inbound: Inbound) -> CoveredHandshake:
        """Open a websocket; a refused handshake is a reply without a socket. Raises as `WebsocketClient.connect`."""
        reply = await self._websockets.connect(self._request(attempt, inbound, None))
        return CoveredHandshake(reply, self.secrets)

    def _request(
        self, attempt: Attempt, inbound: Inbound, body: bytes | AsyncIterator[bytes] | None
    ) -> UpstreamRequest:
        def sent() -> None:
            attempt.sent = True

        return UpstreamRequest(
            method=inbound.method,
            url=self.url(inbound),
            headers=self.request_headers(inbound),
            body=body,
            content_length=inbound.content_length,
            on_sent=sent,
        )

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""
        return self._client.stats()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
        await self._websockets.close()
