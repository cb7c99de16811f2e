"""The failures of a provider: each has one code, one class and one text.

Rule of the file: every failure of this package is created here, so that the texts are safe to show: no URL, no header
value, no byte from the provider. `sent` says whether the request may have reached the provider; only an unsent one is
safe to retry, or one that asks for nothing to be done (`may_repeat`).

Source: `proxy.config.schema.Timeouts` for the codes of timeouts; RFC 9110 sections 9.2.1 and 9.2.2 for safe methods.
"""

import errno
from typing import Final

from proxy.errors import InvalidRequest, NoUpstreamAvailable, Overloaded, ShuttingDown, UpstreamFailed, UpstreamTimeout
from proxy.exchange import UpstreamRequest

POOL_TIMEOUT: Final = "upstream_pool_timeout"
CONNECT_TIMEOUT: Final = "upstream_connect_timeout"
FIRST_BYTE_TIMEOUT: Final = "upstream_first_byte_timeout"
GAP_TIMEOUT: Final = "upstream_gap_timeout"
TOTAL_TIMEOUT: Final = "upstream_total_timeout"
CONNECT_FAILED: Final = "upstream_connect_failed"
DNS_FAILED: Final = "upstream_dns_failed"
TLS_FAILED: Final = "upstream_tls_failed"
PROTOCOL_ERROR: Final = "upstream_protocol_error"
CLOSED: Final = "upstream_closed"
BODY_CUT: Final = "upstream_body_cut"

OUR_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a new socket that are no failures of the provider: its breaker must not open."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TEXTS: Final = {
    CONNECT_TIMEOUT: "Connecting to the provider took too long.",
    FIRST_BYTE_TIMEOUT: "The provider did not begin to answer in time.",
    GAP_TIMEOUT: "The provider fell silent in the middle of its answer.",
    TOTAL_TIMEOUT: "The provider did not finish its answer in time.",
    CONNECT_FAILED: "The connection to the provider was refused or could not be made.",
    DNS_FAILED: "The provider's host name could not be resolved.",
    TLS_FAILED: "No trusted TLS connection to the provider could be made.",
    CLOSED: "The provider closed the connection before it answered.",
    BODY_CUT: "The provider's answer was cut off before its end.",
}


def failed(code: str, *, sent: bool = True) -> UpstreamFailed:
    """Return the failure for `code`."""
    return UpstreamFailed(_TEXTS[code], code=code, sent=sent)


def timed_out(code: str, *, sent: bool = True) -> UpstreamTimeout:
    """Return the timeout for `code`."""
    return UpstreamTimeout(_TEXTS[code], code=code, sent=sent)


def pool_timed_out() -> NoUpstreamAvailable:
    """Return the error for a request that found no free connection in time."""
    return NoUpstreamAvailable("All connections to the provider are busy.", code=POOL_TIMEOUT)


def out_of_descriptors() -> Overloaded:
    """Return the error for a request that needs a socket when this process has no descriptor or memory left for one."""
    return Overloaded(
        "Sidegate has no file descriptor left for a connection to the provider.",
        code="out_of_descriptors",
        retry_after_s=1.0,
    )


def shutting_down() -> ShuttingDown:
    """Return the error for a request to a client that is already closed."""
    return ShuttingDown("The connections to the provider are being closed.")


def malformed(rule: str) -> UpstreamFailed:
    """Return the failure for an answer that violates HTTP. `rule`: the violation, as a constant text."""
    return UpstreamFailed(f"The provider's answer is not valid HTTP ({rule}).", code=PROTOCOL_ERROR, sent=True)


def body_mismatch() -> InvalidRequest:
    """Return the error for a streamed request body whose length differs from its Content-Length."""
    return InvalidRequest("The request body is not as long as its Content-Length.", code="request_body_mismatch")


def may_repeat(request: UpstreamRequest, error: Exception) -> bool:
    """Tell whether a request that failed on a connection used before may be sent once more, on another one.

    Providers close such connections at any time. Nothing is done twice, as it asks for nothing to be done.
    """
    is_closed = isinstance(error, UpstreamFailed) and error.code == CLOSED
    return is_closed and request.method in _SAFE and not request.body
