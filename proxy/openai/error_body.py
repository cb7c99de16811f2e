"""Our own errors in OpenAI's format, before and inside a stream, so that every SDK raises its usual exceptions.

Before the first byte: status, JSON and headers. Inside a stream: one event, after which nothing may follow, especially
no terminator. The SDKs look for the `error` member in every dialect.

Only headers decide whether an SDK retries; it does not read the body. It obeys `x-should-retry`; otherwise it retries a
429 or a 5xx, after `retry-after-ms` or `Retry-After` if that is not too long:

    daily limit                       Retry-After, x-should-retry: false, however soon the window ends
    short window                      Retry-After, and retry-after-ms, which is exact
    a wait that the SDKs do not obey  Retry-After, x-should-retry: false: they would retry far too early

Rule of the file: only the error's own message, type, code and param are sent, figures of a quota, and the policy rules
that a text violated.

Source: openapi.yaml `ErrorResponse`, `ResponseErrorEvent`; the official SDKs (`_should_retry`,
`_calculate_retry_timeout`, `Stream.__stream__`).
"""

import json
import math

from proxy.errors import PolicyViolation, ProxyError, QuotaExceeded
from proxy.exchange import Dialect, Header

_PATIENCE_S = 60
"""The longest wait that all releases of the SDKs obey. Beyond it, most retry after their own short back-off."""
_HOPELESS_CODES = frozenset(
    {"answer_not_scannable", "upstream_bad_encoding", "upstream_credential_echoed", "upstream_event_too_large"}
)
"""Failures that a retry would meet again."""
_PROXIED_METHODS = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


def render(error: ProxyError) -> tuple[int, list[Header], bytes]:
    """Return status, headers (without Content-Length) and body of a response."""
    headers: list[Header] = [(b"Content-Type", b"application/json")]
    wait_s = error.retry_after_s
    if wait_s is not None:
        headers.append((b"Retry-After", b"%d" % max(math.ceil(wait_s), 1)))
    if not _may_try_again(error):
        headers.append((b"x-should-retry", b"false"))
    elif wait_s is not None and isinstance(error, QuotaExceeded):
        headers.append((b"retry-after-ms", b"%d" % max(math.ceil(wait_s * 1000), 1)))
    if error.http_status == 401:
        headers.append((b"WWW-Authenticate", b"Bearer"))
    if error.http_status == 405:
        headers.append((b"Allow", _PROXIED_METHODS))
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


def _may_try_again(error: ProxyError) -> bool:
    """Leave it to the SDK, unless a retry would certainly fail."""
    wait_s = error.retry_after_s
    if error.code in _HOPELESS_CODES or (wait_s is not None and wait_s > _PATIENCE_S):
        return False
    # A limit without a wait is one that the request alone exceeds.
    return not isinstance(error, QuotaExceeded) or (error.retryable and wait_s is not None)


def _described(error: ProxyError) -> dict[str, object]:
    described: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if isinstance(error, PolicyViolation) and error.rules:
        described["details"] = {"rules": list(error.rules)}
    if isinstance(error, QuotaExceeded):
        if error.details:
            described["details"] = dict(error.details)
        if error.reset_at is not None:
            described["resetAt"] = error.reset_at
    return described


def _encoded(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")
