"""How an exchange ended, in one word: derived at the end from what happened, never set along the way.

Source of the words: `exchange.Outcome`.
"""

from proxy.errors import (
    ClientDisconnected,
    InternalError,
    NoUpstreamAvailable,
    Overloaded,
    PolicyViolation,
    ProxyError,
    ShuttingDown,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.exchange import Attempt, Exchange, Outcome


def outcome_of(x: Exchange) -> Outcome:
    """Return the outcome of a finished exchange; its own errors take precedence over those of the answer."""
    attempt = x.answering
    if x.error is None and attempt is not None:
        return _of_answer(attempt)
    return _of_error(x.error, attempt)


def _of_error(error: ProxyError | None, attempt: Attempt | None) -> Outcome:
    match error:
        case ClientDisconnected():
            return "client_abort"
        case UpstreamTimeout():
            return "timeout"
        case UpstreamFailed():
            return "truncated" if attempt is not None and attempt.headers_at is not None else "upstream_failed"
        case NoUpstreamAvailable():
            return "upstream_failed"
        case ShuttingDown() | Overloaded() if attempt is not None:
            return "drain_abort" if isinstance(error, ShuttingDown) else "overload_abort"
        case PolicyViolation() if attempt is not None and attempt.headers_at is not None:
            return "policy_cut"
        case InternalError() | None:
            return "internal_error"
        case _:
            return "rejected"


def _of_answer(attempt: Attempt) -> Outcome:
    if attempt.meter.withheld:
        return "policy_cut"
    if attempt.meter.cut:
        return "quota_cut"
    if attempt.status is None or attempt.status >= 400 or attempt.meter.stream_error is not None:
        return "upstream_error"
    return "ok" if attempt.meter.terminated else "truncated"
