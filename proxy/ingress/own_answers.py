"""Answers of our own: how an error, or a document of the ops port, is sent to a client of either server."""

import logging
import time
from collections.abc import MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from proxy.errors import ClientDisconnected, ProxyError, ShuttingDown
from proxy.exchange import Delivery, Header, Headers
from proxy.ingress.client_request import ClientRequest
from proxy.ingress.downstream import HttpDownstream
from proxy.openai.error_body import render
from proxy.trace.record import trace_id

_log = logging.getLogger("sidegate.ingress")
STALL_S: Final = 60.0
"""Longest time a client may not read an answer that is sent before the configuration is asked."""
SERVER: Final[Header] = (b"Server", b"sidegate")


async def answer(
    request: ClientRequest, status: int, headers: Headers, body: bytes, *, is_last: bool = False
) -> HttpDownstream:
    """Send a complete response; `is_last`: close the connection after it."""
    downstream = HttpDownstream(request, Delivery(), STALL_S)
    if is_last or request.ends_connection:
        downstream.refuse_more()
    with suppress(ClientDisconnected):
        await downstream.send(status, HTTPStatus(status).phrase, headers, body)
    return downstream


async def refuse(request: ClientRequest, error: ProxyError, more: Headers = ()) -> HttpDownstream:
    """Send an error, with an id that leads to its log line. `more` replaces fields of the same name."""
    status, rendered, body = render(error)
    replaced = {name for name, _ in more}
    headers = [header for header in rendered if header[0] not in replaced]
    reference = trace_id(time.time_ns() // 1_000_000)
    _log.info("refused", extra={"trace": reference, "status": status, "code": error.code})
    ids = ((b"x-sidegate-trace-id", reference.encode()), (b"x-request-id", reference.encode()), SERVER)
    return await answer(request, status, (*headers, *ids, *more), body, is_last=isinstance(error, ShuttingDown))


def add_reference(response: Any) -> Any:
    """Add the two ids that every answer has to an aiohttp response that does not come from a provider."""
    headers: MutableMapping[str, str] = response.headers
    headers["x-sidegate-trace-id"] = headers["x-request-id"] = trace_id(time.time_ns() // 1_000_000)
    headers["Server"] = "sidegate"  # aiohttp would reveal its own version and Python's
    return response


def raw_answer(error: ProxyError) -> bytes:
    """Return an error as raw bytes, for a connection that is refused."""
    status, headers, body = render(error)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
    return b"%b%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (head, lines, len(body), body)
