"""The HTTP client for one upstream, in two interchangeable implementations.

`lean`, the default, is our own and takes about a fifth of the CPU per request (bench/upstream_client.py). `aiohttp`
uses its client session, for those who prefer a widely used client. Both pass the same tests; `session` lists the
differences.

Rule of the file: callers see `Client` and the errors named there, never a library's.
"""

from typing import Protocol

from proxy.config import schema
from proxy.event_loop.write_batching import LoopTurn
from proxy.exchange import UpstreamReply, UpstreamRequest
from proxy.process.lazy import imported
from proxy.upstream.lean import LeanClient
from proxy.upstream.stats import ClientStats


class Client(Protocol):
    """Sends requests to one upstream and keeps the connections to it."""

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send a request and return the reply once its head has arrived. Sends nothing twice (but `may_repeat`).

        The caller must `close()` the reply. Cancelling drops the connection.

        Raises:
            UpstreamFailed: no connection, a broken one, or a malformed answer; `sent` and `code` say which.
            UpstreamTimeout: connecting, the first byte or the whole exchange took too long.
            NoUpstreamAvailable: no connection became free in time.
            Overloaded: this process has no descriptor left for a connection.
            ShuttingDown: the client is closed.
            InvalidRequest: a streamed body was not as long as announced.
            ValueError: the URL is not one of this upstream, or a header field cannot be written.
        """

    async def close(self) -> None:
        """Drop all connections, including those in use, and wait until they are closed."""

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""


def make_client(
    upstream: schema.Upstream,
    client: schema.UpstreamClient,
    timeouts: schema.Timeouts,
    turn: LoopTurn | None = None,
) -> Client:
    """Create the configured client. Call it in the event loop that will use it.

    `turn`: writes small requests together with what others write in the same turn of the loop.

    Raises:
        OSError: `client.ca_file` cannot be read.
    """
    if client.kind == "aiohttp":
        made: Client = imported("proxy.upstream.session:SessionClient")(upstream, client, timeouts)
        return made
    return LeanClient(upstream, client, timeouts, turn)
