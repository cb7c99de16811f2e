"""Our own errors in OpenAI's shape, before and inside a stream, so that every SDK raises its own class of exception.

Before the first byte: status, JSON and headers. Inside a stream: one event, after which nothing may follow, above all
no terminator. The `error` member is what the SDKs look for in every dialect.

Rule of the file: nothing but the error's own message, type, code and param is told.
Source: openapi.yaml `ErrorResponse`, `ResponseErrorEvent`; the official SDKs (`_should_retry`, `Stream.__stream__`).
"""

import json
import math

from proxy.errors import ProxyError
from proxy.exchange import Dialect, Header

_PATIENCE_S = 120
"""The SDKs do not wait longer than this, but would try at once instead."""
_HOPELESS_CODES = frozenset({"upstream_bad_encoding", "upstream_event_too_large"})
"""Failures that the same request would meet again."""


def render(error: ProxyError) -> tuple[int, list[Header], bytes]:
    """Return status, headers (without Content-Length) and body of an answer."""
    headers: list[Header] = [(b"Content-Type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"Retry-After", b"%d" % max(math.ceil(error.retry_after_s), 1)))
    if error.code in _HOPELESS_CODES or (error.retry_after_s or 0) > _PATIENCE_S:
        headers.append((b"x-should-retry", b"false"))
    if error.http_status == 401:
        headers.append((b"WWW-Authenticate", b"Bearer"))
    return error.http_status, headers, _encoded({"error": _described(error)})


def stream_event(error: ProxyError, dialect: Dialect, sequence_number: int = 0) -> bytes:
    """Return the event that ends a stream with an error.

    `sequence_number`: the one that follows the last event sent; only the responses dialect counts its events.
    """
    described = _described(error)
    if dialect in ("chat", "completions"):
        return b"data: %b\n\n" % _encoded({"error": described})
    event: dict[str, object] = {"type": "error"}
    if dialect == "responses":
        event |= {
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": sequence_number,
        }
    event["error"] = described
    return b"event: error\ndata: %b\n\n" % _encoded(event)


def _described(error: ProxyError) -> dict[str, str | None]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def _encoded(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")
