"""An HTTP client on aiohttp's client session, made as transparent as possible.

All its automatic behaviour is disabled: default fields, decompression, cookies, redirects, proxies from the
environment, the silent retry of idempotent methods, its total timeout of five minutes. Slots and timeouts are ours,
with the codes and meaning of the lean client.

Remaining differences from `lean`: bare LF line ends, folded lines, blanks after a chunk size, unknown transfer codings
and some control characters are accepted; interim answers are not counted; surplus bytes in the last segment of an
answer fail the answer; DELETE without a body sends Content-Length: 0; header bytes must be UTF-8; repeated fields in
different case all get the first one's; with a body given as bytes, the first-byte timeout starts when sending it does;
the total timeout is enforced in `read` only.

Source: aiohttp client reference.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from proxy.config import schema
from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Sink, UpstreamReply, UpstreamRequest, first_values
from proxy.upstream import failures
from proxy.upstream.origin import Origin
from proxy.upstream.session_setup import (
    Progress,
    Slots,
    drop,
    head_failure,
    make_session,
    reason_text,
    text_fields,
)
from proxy.upstream.stats import ClientStats


class SessionClient:
    """Implements `client.Client` for one upstream. Must be created inside the event loop that uses it."""

    def __init__(self, upstream: schema.Upstream, client: schema.UpstreamClient, timeouts: schema.Timeouts) -> None:
        self._origin = Origin.of(upstream.base_url)
        self._timeouts = timeouts
        self._slots = Slots(upstream.max_connections, timeouts.pool_s)
        self._session = make_session(upstream, client, self._origin.tls(client.ca_file))

    def stats(self) -> ClientStats:
        """Count running and waiting requests; aiohttp does not report its idle connections."""
        return ClientStats(open=self._slots.busy, idle=0, waiting=self._slots.waiting)

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send a request and return the reply once its head has arrived."""
        self._origin.target(request.url)
        if self._session.closed:
            raise failures.shutting_down()
        fields = text_fields(request.headers)
        total_at = asyncio.get_running_loop().time() + self._timeouts.total_s
        return await self._slots.start(total_at, lambda: self._exchange(request, fields, total_at, is_last=False))

    async def close(self) -> None:
        """Drop all connections, including those in use."""
        await self._session.close()

    async def _exchange(
        self, request: UpstreamRequest, fields: CIMultiDict[str], total_at: float, *, is_last: bool
    ) -> UpstreamReply:
        if request.content_length is not None and not isinstance(request.body, bytes):
            fields["Content-Length"] = str(request.content_length)
        progress = Progress(request, self._timeouts, total_at)
        try:
            async with progress:
                response = await self._session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers=fields,
                    data=progress.body(),
                    allow_redirects=False,
                )
                progress.answered = True
        except TimeoutError as error:
            raise failures.timed_out(progress.code, sent=progress.sent) from error
        except aiohttp.ClientError as error:
            failure = progress.error or head_failure(error, sent=progress.sent)
            if is_last or not progress.is_reused or not failures.may_repeat(request, failure):
                raise failure from error
            response = None
        if response is None:
            return await self._exchange(request, fields, total_at, is_last=True)
        if response.status < 200:
            drop(response)
            raise failures.malformed("not a final answer")
        return SessionReply(response, progress, self._timeouts.gap_s, total_at, self._slots.give)


class SessionReply:
    """Implements `exchange.UpstreamReply` on an aiohttp response."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        progress: Progress,
        gap_s: float,
        total_at: float,
        on_done: Callable[[], None],
    ) -> None:
        self._response = response
        self._progress = progress
        self._gap_s = gap_s
        self._total_at = total_at
        self._on_done = on_done
        self._done = False
        self._error: Exception | None = None
        self.status = response.status
        self.reason = reason_text(response)
        self.headers: Headers = response.raw_headers
        self.fields = first_values(self.headers)

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived, `b""` at the end; wait only if nothing has."""
        if self._error is not None:
            raise self._error
        if self._done:
            return b""
        try:
            data = await self._next_piece()
        except UpstreamFailed as error:
            self._error = error
            self.close()
            raise
        if not data:
            if self._progress.uploading:
                self._response.close()
            self._finish()
        return data

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._done or self._response.content.is_eof()

    def close(self) -> None:
        """Drop the connection unless the answer is complete. Idempotent; never waits."""
        if not self._done:
            self._error = self._error or failures.failed(failures.BODY_CUT)
            self._response.close()
            self._finish()

    async def _next_piece(self) -> bytes:
        left_s = self._total_at - asyncio.get_running_loop().time()
        code = failures.GAP_TIMEOUT if self._gap_s < left_s else failures.TOTAL_TIMEOUT
        try:
            async with asyncio.timeout(min(self._gap_s, left_s)):
                return await self._response.content.readany()
        except TimeoutError as error:
            raise failures.timed_out(code) from error
        except (aiohttp.ClientError, HttpProcessingError) as error:
            if self._progress.error is not None:
                raise self._progress.error from error
            raise _body_failure(error) from error

    def _finish(self) -> None:
        self._done = True
        self._on_done()


def _body_failure(error: Exception) -> UpstreamFailed:
    if isinstance(error, HttpProcessingError):
        return failures.malformed("the body's framing is broken")
    return failures.failed(failures.BODY_CUT)
