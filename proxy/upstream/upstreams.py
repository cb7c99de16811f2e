"""All providers behind one interface: an attempt goes to the one that its candidate names.

Rule of the file: every reply has the credentials of all providers masked, not only of the one that answered: an error
from one may quote a request that was sent to another.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence

from proxy.exchange import Attempt, Headers, Inbound, UpstreamReply
from proxy.upstream.covering import CoveredHandshake
from proxy.upstream.headers import response_headers
from proxy.upstream.provider import Provider
from proxy.upstream.stats import ClientStats


class Upstreams:
    """All providers by name; the first is the default."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._by_name = {provider.name: provider for provider in providers}
        self.name = providers[0].name
        self.force_stream_usage = any(provider.force_stream_usage for provider in providers)
        secrets = {secret for provider in providers for secret in provider.secrets}
        self.secrets = tuple(sorted(secrets, key=len, reverse=True))

    def send(
        self, attempt: Attempt, inbound: Inbound, body: bytes | AsyncIterator[bytes] | None
    ) -> Awaitable[UpstreamReply]:
        """Send; the awaitable returns the reply once its head has arrived. Raises as `Client.send`."""
        return self._by_name[attempt.candidate.upstream].send(attempt, inbound, body)

    async def connect(self, attempt: Attempt, inbound: Inbound) -> CoveredHandshake:
        """Open a websocket; a refused handshake is a reply without a socket. Raises as `WebsocketClient.connect`."""
        return await self._by_name[attempt.candidate.upstream].connect(attempt, inbound)

    def response_headers(self, reply: UpstreamReply) -> Headers:
        """Return the provider's headers that the client may see."""
        return response_headers(reply.headers, secrets=self.secrets)

    def stats(self) -> dict[str, ClientStats]:
        """Count connections and waiting requests, by provider."""
        return {name: provider.stats() for name, provider in self._by_name.items()}

    async def close(self) -> None:
        """Close all connections."""
        for provider in self._by_name.values():
            await provider.close()
