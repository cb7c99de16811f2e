"""Every error that a client may see, as one small tree.

A leaf carries what the place that raises it knows: whose fault it is (`source`), the HTTP status, the semantic `code`
that SDKs read, and whether trying again is safe (`retryable`). Messages are safe to show: they never quote a
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
    """The credential is missing or not valid."""

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
    """The policy blocks a prompt or an answer. `param` names the place, never the text; `rules` holds their ids."""

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
    """Too many wrong credentials came from this address; further ones are refused unseen for a while."""

    status = 429
    type = "rate_limit_exceeded"
    default_code = "too_many_attempts"
    source = "client"
    retryable = True


class QuotaExceeded(ProxyError):
    """The caller's quota is used up. `details` and `reset_at` (ISO 8601) are shown inside the error."""

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
    """PostgreSQL is unavailable, no lease is held for this caller, and its project does not serve it then."""

    status = 503
    type = "service_unavailable_error"
    default_code = "quota_unavailable"
    retryable = True


class ClientDisconnected(ProxyError):
    """The client disconnected. Never rendered, as nobody would read it; the trace says 499."""

    status = 499
    default_code = "client_disconnected"
    source = "client"


class InternalError(ProxyError):
    """A bug of ours. The message reveals nothing internal."""

    status = 500
    default_code = "internal_error"


class PolicyUnavailable(InternalError):
    """Scanning failed or is not ready, and nothing passes unscanned. Names no rule."""

    default_code = "policy_unavailable"


class UpstreamFailed(ProxyError):
    """The provider failed: refused, unreachable, malformed, or cut off in the middle of an answer.

    `sent` tells whether the request may have reached the provider: only an unsent one is safe to try again.
    """

    status = 502
    default_code = "upstream_failed"
    source = "upstream"

    def __init__(self, message: str, *, code: str | None = None, sent: bool = True) -> None:
        super().__init__(message, code=code)
        self.sent = sent


class UpstreamTimeout(UpstreamFailed):
    """The provider exceeded one of our timeouts; `code` says which."""

    status = 504
    default_code = "upstream_timeout"


class NoUpstreamAvailable(ProxyError):
    """No provider can take the request at the moment."""

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
    """The process is draining; the request was not started."""

    status = 503
    type = "service_unavailable_error"
    default_code = "shutting_down"
    retryable = True


class DatabaseUnavailable(ProxyError):
    """PostgreSQL is unreachable or busy: try the same again later."""

    status = 503
    type = "service_unavailable_error"
    default_code = "database_unavailable"
    retryable = True


class DatabaseContended(DatabaseUnavailable):
    """Another transaction was in the way of this one; it was rolled back and may be repeated at once."""


class DatabaseTooSlow(DatabaseUnavailable):
    """A statement took longer than our own limit; a smaller one may not."""


class DatabaseUnfit(DatabaseUnavailable):
    """What a statement needs is missing or denied: to all like it, or to what a trigger does for some rows."""


class JournalUnavailable(ProxyError):
    """The request cannot be recorded (no space, or a failing disk) and was not started."""

    status = 503
    type = "service_unavailable_error"
    default_code = "journal_unavailable"
    retryable = True


def forget_origins(*errors: BaseException | None) -> None:
    """Drop where errors came from, once they are told: the frames there may refer to what keeps the errors."""
    for error in errors:
        if error is not None:
            error.__traceback__ = error.__cause__ = error.__context__ = None


class RecordRejected(Exception):
    """PostgreSQL cannot hold a value (SQLSTATE class 22 or 54): trying it again cannot help. Internal."""


class ConstraintViolated(RecordRejected):
    """A row breaks a rule of its table (SQLSTATE class 23), which may be a rule that every row breaks. Internal."""
