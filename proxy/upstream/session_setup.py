"""Shared parts of the clients on aiohttp: the session without automatic behaviour, slots, progress, failures.

Rule of the file: aiohttp's errors are handled here and in `session`; its texts quote URLs and answers, ours do not.

Source: aiohttp client reference.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict

from proxy.config import schema
from proxy.errors import InvalidRequest, Overloaded, UpstreamFailed
from proxy.exchange import Headers, UpstreamRequest
from proxy.upstream import failures

T = TypeVar("T")

_AUTOMATIC_FIELDS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Slots:
    """Limits the running requests, first come, first served."""

    def __init__(self, count: int, pool_s: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._pool_s = pool_s
        self.busy = 0
        self.waiting = 0

    async def start(self, total_at: float, exchange: Callable[[], Awaitable[T]]) -> T:
        """Wait for a slot and start an exchange, whose reply gives the slot back; here that happens only if it fails.

        Raises:
            NoUpstreamAvailable: no slot became free in time. Also what `exchange` raises.
        """
        await self._take(total_at)
        try:
            return await exchange()
        except BaseException:
            self.give()
            raise

    async def _take(self, total_at: float) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + self._pool_s, total_at)):
                await self._free.acquire()
        except TimeoutError as error:
            raise failures.pool_timed_out() from error
        finally:
            self.waiting -= 1
        self.busy += 1

    def give(self) -> None:
        """Give a slot back."""
        self.busy -= 1
        self._free.release()


class Progress:
    """The progress of a request: which timeout applies, and any failure of its body."""

    def __init__(self, request: UpstreamRequest, timeouts: schema.Timeouts, total_at: float) -> None:
        self._request = request
        self._first_byte_s = timeouts.first_byte_s
        self._total_at = total_at
        self._loop = asyncio.get_running_loop()
        self.code = failures.CONNECT_TIMEOUT
        self._timeout = asyncio.timeout_at(min(self._loop.time() + timeouts.connect_s, total_at))
        self.sent = False
        self.is_reused = False
        """On a connection that had been used before."""
        self.uploading = False
        self.answered = False
        """The head has arrived, and the timeout has ended."""
        self.error: Exception | None = None
        """Raised by the iterator of the request's body."""

    async def __aenter__(self) -> None:
        """Begin: hooks of the session find this object, and the timeout runs."""
        self._token = UNDER_WAY.set(self)
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        """End, with TimeoutError if the time was up. The task's context forgets this object, which knows the task."""
        UNDER_WAY.reset(self._token)
        await self._timeout.__aexit__(*raised)

    def connected(self) -> None:
        """Record that the first byte of the request is being sent."""
        if self.sent:
            return
        self.sent = True
        if self._request.on_sent is not None:
            self._request.on_sent()
        if self._request.body is None or isinstance(self._request.body, bytes):
            self._enter(failures.FIRST_BYTE_TIMEOUT, self._first_byte_s)
        else:
            self._enter(failures.TOTAL_TIMEOUT, self._total_at - self._loop.time())

    def body(self) -> bytes | AsyncIterator[bytes] | None:
        """Return the body in the form that makes aiohttp frame it as `lean` does."""
        body = self._request.body
        return self._stream(body) if body is not None and not isinstance(body, bytes) else body

    async def _stream(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.uploading = True
        left = self._request.content_length
        try:
            async for piece in pieces:
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise failures.body_mismatch()
                yield piece
            if left:
                raise failures.body_mismatch()
        except Exception as error:
            self.error = error
            raise
        self.uploading = False
        self._enter(failures.FIRST_BYTE_TIMEOUT, self._first_byte_s)

    def _enter(self, code: str, seconds: float) -> None:
        at = self._loop.time() + seconds
        self.code, at = (code, at) if at < self._total_at else (failures.TOTAL_TIMEOUT, self._total_at)
        if not self.answered:
            self._timeout.reschedule(at)


UNDER_WAY: Final[ContextVar[Progress]] = ContextVar("request under way")
"""Lets aiohttp's trace signals, which run in the request's task, find its progress."""


class _WaryConnector(aiohttp.TCPConnector):
    """Never reuses a connection that received data while idle: aiohttp would take that for the next answer."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's signature)
    ) -> Connection:
        """Return a connection without unread data."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()


def make_session(
    upstream: schema.Upstream, client: schema.UpstreamClient, tls: ssl.SSLContext | None, **options: Any
) -> aiohttp.ClientSession:
    """Return a session for one upstream without automatic behaviour. `options`: further ones of `ClientSession`."""
    session = aiohttp.ClientSession(
        connector=_WaryConnector(
            limit=0,
            keepalive_timeout=upstream.idle_connection_s,
            ssl=tls or True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        skip_auto_headers=_AUTOMATIC_FIELDS,
        auto_decompress=False,
        trust_env=False,
        requote_redirect_url=False,
        # aiohttp pauses reading at twice this size.
        read_bufsize=max(client.read_buffer_bytes // 2, 1),
        max_line_size=client.header_line_bytes,
        max_field_size=client.header_line_bytes,
        max_headers=client.headers,
        trace_configs=[_trace_config()],
        **options,
    )
    # There is no public option; aiohttp's own test client does the same. A test verifies its effect.
    session._retry_connection = False
    return session


def drop(response: aiohttp.ClientResponse) -> None:
    """Close the connection of a response that makes its further use unsafe.

    `response.close()` alone does not if aiohttp has taken the connection back already, as it does after a 101 without
    `Upgrade`: the next request would be sent to a provider that has left HTTP, and never be answered.
    """
    response.close()
    if response._protocol is not None:
        response._protocol.close()


def _trace_config() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(_on_connected)
    config.on_connection_reuseconn.append(_on_reused)
    return config


async def _on_connected(_session: aiohttp.ClientSession, _context: SimpleNamespace, _parameters: Any) -> None:
    UNDER_WAY.get().connected()


async def _on_reused(_session: aiohttp.ClientSession, _context: SimpleNamespace, _parameters: Any) -> None:
    progress = UNDER_WAY.get()
    progress.is_reused = True
    progress.connected()


def text_fields(headers: Headers) -> CIMultiDict[str]:
    """Return the fields in the form that aiohttp accepts. Raises InvalidRequest for bytes that are not UTF-8."""
    fields: CIMultiDict[str] = CIMultiDict()
    spelling: dict[str, str] = {}
    for raw_name, raw_value in headers:
        try:
            name, value = raw_name.decode("ascii"), raw_value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest("A header field is not UTF-8.", code="header_not_utf8") from error
        # aiohttp replaces an earlier field whose name differs in case only.
        fields.add(spelling.setdefault(name.lower(), name), value)
    return fields


def reason_text(response: aiohttp.ClientResponse) -> str:
    """Return the reason phrase with one character per byte; aiohttp decodes UTF-8, with surrogates for other bytes."""
    return (response.reason or "").encode("utf-8", "surrogateescape").decode("latin-1")


def head_failure(error: aiohttp.ClientError, *, sent: bool) -> UpstreamFailed | Overloaded:
    """Return the failure for an error that occurred before the head of an answer arrived."""
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno in failures.OUR_OWN:
        return failures.out_of_descriptors()
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return failures.failed(failures.DNS_FAILED, sent=False)
    if isinstance(error, aiohttp.ClientSSLError):
        return failures.failed(failures.TLS_FAILED, sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return failures.failed(failures.CONNECT_FAILED, sent=False)
    if isinstance(error, aiohttp.ClientResponseError):
        return failures.malformed("the head cannot be parsed")
    return failures.failed(failures.CLOSED, sent=sent)
