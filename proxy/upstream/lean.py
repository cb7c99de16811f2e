"""Our own HTTP/1.1 client: a pool of asyncio protocols around `httptools`.

It does what a relay needs and nothing else: one request, one reply, unchanged bytes. It follows no redirects,
stores no cookies, ignores proxy variables of the environment, decodes nothing and adds only Host and framing.

    send -> pool.acquire -> connection.begin -> transmit -> reply.head          lean_pool, lean_dial
                                 '- lean_request (head)      '- lean_answer (parser), lean_reply (body), lean_deadline

Failure mode: if the provider closes a pooled connection while our request is in transit, that is an
`UpstreamFailed(sent=True)`, unless it only reads: then it is sent once more. Other retries are decided elsewhere.

Source: RFC 9112.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final

from proxy.config import schema
from proxy.errors import UpstreamFailed
from proxy.event_loop.write_batching import LoopTurn
from proxy.exchange import UpstreamReply, UpstreamRequest
from proxy.upstream import failures
from proxy.upstream.lean_connection import Bounds, Connection
from proxy.upstream.lean_dial import dial
from proxy.upstream.lean_pool import Pool
from proxy.upstream.lean_request import request_head, slices
from proxy.upstream.origin import Origin
from proxy.upstream.stats import ClientStats

_REMEMBERED_URLS: Final = 64
_WITH_HEAD_BYTES: Final = 65_536
"""A body up to this size is written together with its head; a larger one in slices of this size."""


class LeanClient:
    """Implements `client.Client` for one upstream. Belongs to the event loop in which it is first used."""

    def __init__(
        self,
        upstream: schema.Upstream,
        client: schema.UpstreamClient,
        timeouts: schema.Timeouts,
        turn: LoopTurn | None = None,
    ) -> None:
        self._turn = turn or LoopTurn()
        self._origin = Origin.of(upstream.base_url)
        self._authority = self._origin.authority
        self._target = lru_cache(_REMEMBERED_URLS)(self._origin.target)
        """Cached, as most requests go to the same few URLs."""
        self._tls = self._origin.tls(client.ca_file)
        self._total_s = timeouts.total_s
        self._bounds = Bounds(
            line_bytes=client.header_line_bytes,
            lines=client.headers,
            read_ahead=client.read_buffer_bytes,
            first_byte_s=timeouts.first_byte_s,
            gap_s=timeouts.gap_s,
        )
        self._pool = Pool(
            self._make_connection,
            self._dial,
            max_connections=upstream.max_connections,
            idle_s=upstream.idle_connection_s,
            pool_s=timeouts.pool_s,
            connect_s=timeouts.connect_s,
        )

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""
        return self._pool.stats()

    async def send(self, request: UpstreamRequest, *, again_until: float | None = None) -> UpstreamReply:
        """Send a request and return the reply once its head has arrived.

        `again_until`: it is sent for the second time; the deadline of the whole exchange.
        """
        head = request_head(request, self._target(request.url), self._authority)
        head, pieces, length = _body(request, head)
        total_at = self._pool.now() + self._total_s if again_until is None else again_until
        connection = self._pool.pick_idle() if again_until is None else None
        if connection is None:
            connection = await self._pool.acquire(total_at, is_fresh=again_until is not None)
        reply = connection.begin(bodiless=request.method == "HEAD", total_at=total_at)
        try:
            if request.on_sent is not None:
                request.on_sent()
            connection.transmit(head, pieces, length)
            await reply.head()
            return reply
        except UpstreamFailed as error:
            reply.close()
            if again_until is not None or not connection.has_served or not failures.may_repeat(request, error):
                raise
        except BaseException:
            reply.close()
            raise
        return await self.send(request, again_until=total_at)

    async def close(self) -> None:
        """Drop all connections, including those in use."""
        await self._pool.close()

    def _make_connection(self) -> Connection:
        return Connection(asyncio.get_running_loop(), self._bounds, self._pool.release, self._pool.lost, self._turn)

    async def _dial(self, connection: Connection, timeout_s: float) -> None:
        await dial(self._origin, self._tls, connection, timeout_s)


def _body(request: UpstreamRequest, head: bytes) -> tuple[bytes, AsyncIterator[bytes] | None, int | None]:
    """Return what to write first, what to stream after it, and the length of the stream (`None`: chunked)."""
    body = request.body
    if body is None:
        return head, None, None
    if not isinstance(body, bytes):
        return head, body, request.content_length
    if len(body) <= _WITH_HEAD_BYTES:
        return head + body, None, None
    return head, slices(body, _WITH_HEAD_BYTES), len(body)
