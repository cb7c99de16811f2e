"""Every failure that a client may see, as one small tree.

A leaf says at the place that knows: whose fault it is (`source`), which HTTP status it becomes, the semantic `code`
that an SDK reads, and whether trying again is safe (`retryable`). Messages are safe to show: they never quote a
credential, a prompt or an answer. `openai.error_body` renders a leaf in OpenAI's shape; nothing else reaches a client.

Source: OpenAI API reference, "Error codes"; RFC 9110 section 15.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

Source = Literal["client", "policy", "sidegate", "upstream"]


class ProxyError(Exception):
    """Base of the tree. `param` names the request field concerned, `retry_after_s` becomes `Retry-After`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None
    source: ClassVar[Source] = "sidegate"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.http_status = status or self.status
        self.retry_after_s = retry_after_s


class InvalidRequest(ProxyError):
    """The request cannot be understood or exceeds a limit. `status` narrows it: 404, 405, 408, 413, 415, 431."""

    status = 400
    type = "invalid_request_error"
    source = "client"


class Unauthenticated(ProxyError):
    """No credential, or one that is not valid."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"
    source = "client"


class PermissionDenied(ProxyError):
    """The credential is valid but its role does not allow this."""

    status = 403
    type = "request_forbidden"
    default_code = "permission_denied"
    source = "client"


class PolicyViolation(ProxyError):
    """Policy forbids what a prompt or an answer says. `param` names the place, never the text; `rules` the rules."""

    status = 400
    type = "invalid_request_error"
    default_code = "policy_violation"
    source = "policy"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        rules: Sequence[str] = (),
        code: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, code=code, param=param, status=status)
        self.rules = tuple(rules)


class TooManyAttempts(ProxyError):
    """Too many wrong credentials came from this address; they are not looked at for a while."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "too_many_attempts"
    source = "client"
    retryable = True


class QuotaExceeded(ProxyError):
    """The caller has used up what it may. `details` and `reset_at` (ISO 8601) are shown inside the error."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    source = "policy"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, str | int | float | None] | None = None,
        reset_at: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.details = details or {}
        self.reset_at = reset_at


class RateLimited(QuotaExceeded):
    """A short window is full: waiting for `retry_after_s` helps, and the official SDKs do."""

    type = "rate_limit_exceeded"
    default_code = "rate_limit_exceeded"
    retryable = True


class QuotaUnavailable(ProxyError):
    """PostgreSQL is away, nothing is held for this caller, and its project's policy does not serve it then."""

    status = 503
    type = "service_unavailable_error"
    default_code = "quota_unavailable"
    retryable = True


class ClientDisconnected(ProxyError):
    """The client went away. Never rendered: there is nobody to read it; 499 stands in the trace."""

    status = 499
    default_code = "client_disconnected"
    source = "client"


class InternalError(ProxyError):
    """A fault of our own. The message names nothing of the inside."""

    status = 500
    default_code = "internal_error"


class PolicyUnavailable(InternalError):
    """Scanning failed or is not ready, and what is not scanned does not pass. Names no rule."""

    default_code = "policy_unavailable"


class UpstreamFailed(ProxyError):
    """The provider's side broke: refused, unreachable, malformed, or cut in the middle of an answer.

    `sent` tells whether the request may have reached the provider: only an unsent one is safe to try again.
    """

    status = 502
    default_code = "upstream_failed"
    source = "upstream"

    def __init__(self, message: str, *, code: str | None = None, sent: bool = True) -> None:
        super().__init__(message, code=code)
        self.sent = sent


class UpstreamTimeout(UpstreamFailed):
    """The provider did not act within one of our timeouts; `code` says which."""

    status = 504
    default_code = "upstream_timeout"


class NoUpstreamAvailable(ProxyError):
    """Nothing can take the request just now."""

    status = 503
    type = "service_unavailable_error"
    default_code = "no_upstream_available"
    source = "upstream"
    retryable = True


class Overloaded(ProxyError):
    """A limit of our own is reached (connections, concurrent requests, buffered bytes, journal space)."""

    status = 503
    type = "service_unavailable_error"
    default_code = "server_overloaded"
    retryable = True


class ShuttingDown(ProxyError):
    """The process is draining: the request was not begun."""

    status = 503
    type = "service_unavailable_error"
    default_code = "shutting_down"
    retryable = True


class DatabaseUnavailable(ProxyError):
    """PostgreSQL cannot be reached or cannot work just now: try the same thing again later."""

    status = 503
    type = "service_unavailable_error"
    default_code = "database_unavailable"
    retryable = True


class JournalUnavailable(ProxyError):
    """A request cannot be recorded: no space, or the disk fails. It was not begun."""

    status = 503
    type = "service_unavailable_error"
    default_code = "journal_unavailable"
    retryable = True


class RecordRejected(Exception):
    """PostgreSQL refuses the data of a batch (SQLSTATE class 22 or 23): trying it again cannot help. Internal."""
