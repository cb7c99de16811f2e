"""The description of a failed request, or of a failed call, in its trace.

A `ProxyError` has all details, and its message is safe by contract. If the provider failed and we only passed that on,
there is none: then the outcome explains it. Only the provider's short error codes are quoted.
"""

from typing import Any

from proxy.errors import ProxyError, Source
from proxy.exchange import Attempt, Exchange, Outcome
from proxy.trace.values import NAME, TEXT, bounded

_UNEXPLAINED: dict[Outcome, tuple[Source, str]] = {
    "upstream_error": ("upstream", "The provider answered with an error."),
    "upstream_failed": ("upstream", "The provider gave no complete answer."),
    "timeout": ("upstream", "The provider did not answer in time."),
    "truncated": ("upstream", "The stream ended without its terminator."),
    "quota_cut": ("policy", "The stream was ended because the caller's quota was used up."),
    "policy_cut": ("policy", "The answer was withheld or ended because of its content."),
    "client_abort": ("client", "The client disconnected before the answer was complete."),
    "drain_abort": ("sidegate", "The answer was cut at the end of the drain time."),
    "overload_abort": ("sidegate", "The answer was ended because the process was short of memory."),
    "internal_error": ("sidegate", "The request failed inside the proxy."),
    "interrupted": ("sidegate", "The proxy process ended before the request was complete."),
}


def error_info(x: Exchange) -> dict[str, Any] | None:
    """Return why an exchange failed, `None` if it did not."""
    if x.error is not None:
        return {**_error(x.error), "source": x.error.source, "param": bounded(x.error.param, NAME)}
    if x.outcome == "ok":
        return None
    answering = x.answering
    code = None if answering is None else answering.meter.stream_error
    return unexplained(x.outcome or "internal_error", bounded(code, NAME))


def unexplained(outcome: Outcome, code: str | None = None) -> dict[str, Any] | None:
    """Return the description of an outcome; `code`: the provider's own, if it named one."""
    if outcome not in _UNEXPLAINED:
        return None
    source, message = _UNEXPLAINED[outcome]
    return {"code": code or outcome, "type": "server_error", "message": message, "source": source, "param": None}


def call_error(attempt: Attempt) -> dict[str, Any] | None:
    """Return why one attempt failed, `None` if it did not."""
    if attempt.error is not None:
        return _error(attempt.error)
    if code := attempt.used.stream_error:
        is_stream = attempt.used.events > 0
        message = "The provider put an error into its stream." if is_stream else _UNEXPLAINED["upstream_error"][1]
        return {"code": code[:NAME], "type": "server_error", "message": message}
    return None


def _error(error: ProxyError) -> dict[str, Any]:
    return {"code": error.code, "type": error.type, "message": error.message[:TEXT]}
