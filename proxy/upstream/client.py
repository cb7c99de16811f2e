"""The HTTP client towards one upstream, in two exchangeable kinds.

`lean` is the default: our own, about a fifth of the CPU per request (bench/upstream_client.py). `aiohttp` is its client
session, for whoever trusts a widely used client more than the saving. Both pass the same tests; `session` says where
they differ.

Rule of the file: callers see `Client` and the errors named there, never a library's.
"""

from typing import Protocol

from proxy.config import schema
from proxy.exchange import UpstreamReply, UpstreamRequest
from proxy.lazy import function
from proxy.upstream.lean import LeanClient
from proxy.upstream.stats import ClientStats


class Client(Protocol):
    """Sends requests to one upstream and keeps the connections to it."""

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send a request and return the reply as soon as its head is there. Never sends anything twice.

        The caller must `close()` the reply. Cancelling drops the connection.

        Raises:
            UpstreamFailed: no connection, or it broke, or the answer is malformed; `sent` and `code` say which.
            UpstreamTimeout: connecting, the first byte or the whole exchange took too long.
            NoUpstreamAvailable: no connection became free in time.
            ShuttingDown: the client is closed.
            InvalidRequest: a streamed body was not as long as announced.
            ValueError: the URL is not one of this upstream, or a header field cannot be written.
        """

    async def close(self) -> None:
        """Drop all connections, also those in use, and wait until they are gone."""

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""


def make_client(upstream: schema.Upstream, client: schema.UpstreamClient, timeouts: schema.Timeouts) -> Client:
    """Make the client of the configured kind. Call it in the event loop that will use it.

    Raises:
        OSError: `client.ca_file` cannot be read.
    """
    if client.kind == "aiohttp":
        made: Client = function("proxy.upstream.session:SessionClient")(upstream, client, timeouts)
        return made
    return LeanClient(upstream, client, timeouts)
