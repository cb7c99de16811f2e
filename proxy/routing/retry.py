"""What a failure means, and whether to try again: two pure functions on tables.

| failure        | what happened                                          | may be paid | elsewhere | same place      |
|----------------|--------------------------------------------------------|-------------|-----------|-----------------|
| `unsent`       | no byte was written: no connection                     | no          | yes       | once            |
| `busy`         | the same, by a limit of our own: none free, no socket  | no          | yes       | no              |
| `rate_limited` | 429                                                    | no          | yes       | if asked, soon  |
| `overloaded`   | 503, 529                                               | no          | yes       | if asked, soon  |
| `gateway`      | 502, 504, 408                                          | no          | yes       | no              |
| `server_error` | 500 and other 5xx                                      | no          | yes       | no              |
| `refused`      | 401, 402, 403: the credential                          | no          | yes       | no              |
| `not_found`    | 404: the model is not there                            | no          | yes       | no              |
| `stream_error` | the first event of a stream was an error, or none came | no          | yes       | no              |
| `ambiguous`    | sent, but no head came: the outcome is unknown         | yes         | if set    | if set          |

"If set": only with `routing.retry_ambiguous`. "If asked, soon": the provider names a wait of at most
`retry_after_max_s`.
Other places are preferred to the same one. A retry at the same place is taken from a budget, so that a provider in
trouble gets at most a tenth more requests; a fallback is not, because it goes elsewhere.

Source: RFC 9110 sections 9.2.2 and 10.2.3 (Retry-After); gRPC retry throttling (proposal A6) for the budget.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from proxy.config.routing import Routing
from proxy.errors import NoUpstreamAvailable, Overloaded, ProxyError, UpstreamFailed
from proxy.routing.health import Outcome

Kind = Literal[
    "unsent", "busy", "rate_limited", "overloaded", "gateway", "server_error", "refused", "not_found", "stream_error",
    "ambiguous",
]  # fmt: skip
Step = Literal["give_up", "retry", "fallback"]

_BY_STATUS: Final[Mapping[int, Kind]] = {
    401: "refused", 402: "refused", 403: "refused", 404: "not_found", 408: "gateway", 429: "rate_limited",
    500: "server_error", 502: "gateway", 503: "overloaded", 504: "gateway", 529: "overloaded",
}  # fmt: skip
OUTCOMES: Final[Mapping[Kind, Outcome]] = {
    "unsent": "failure", "busy": "nothing", "rate_limited": "cooling", "overloaded": "failure", "gateway": "failure",
    "server_error": "nothing", "refused": "refused", "not_found": "nothing", "stream_error": "half_failure",
    "ambiguous": "failure",
}  # fmt: skip
"""What a failure means to the breaker. A plain 500 concerns the request as often as the provider."""
_DEFAULT_COOLING_S: Final = 5.0
_MOST_COOLING_S: Final = 86_400.0
_OF_A_MODEL: Final = b"x-ratelimit-"
"""Headers of a rate limit, which providers apply per model; exhausted credit comes without them."""
_RESETS: Final = ((b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
                  (b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"))  # fmt: skip
_NUMBER: Final = re.compile(rb"\d{1,9}(?:\.\d{1,9})?")
_DURATION: Final = re.compile(rb"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt's answer is not used. `wait_s`: what the provider asked for; `None`: nothing."""

    kind: Kind
    wait_s: float | None = None
    of_model: bool = False
    """It concerns the model: another one may be requested at the same place."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a request after a failure."""

    attempts: int
    """Number of attempts for the answer so far."""
    is_late: bool
    """The deadline has passed."""
    has_other: bool
    """Another credential or candidate is available now."""
    retried: bool
    """A retry at the same place was made already."""
    has_budget: bool


def of_error(error: ProxyError, *, sent: bool) -> Failure | None:
    """Classify a failure without a response; `None` if it is not the provider's."""
    if isinstance(error, NoUpstreamAvailable | Overloaded):
        return Failure("busy")
    if isinstance(error, UpstreamFailed):
        return Failure("ambiguous" if error.sent or sent else "unsent")
    return None


def of_status(status: int, fields: Mapping[bytes, bytes]) -> Failure | None:
    """Classify the head of a response; `None` if the client gets it. `fields`: by lower-case name."""
    kind = _BY_STATUS.get(status, "server_error" if status >= 500 else None)
    if kind is None:
        return None
    of_model = kind == "rate_limited" and any(name.startswith(_OF_A_MODEL) for name in fields)
    return Failure(kind, _wait_s(fields) if kind in ("rate_limited", "overloaded") else None, of_model)


def again(failure: Failure, standing: Standing, settings: Routing) -> Step:
    """Decide what follows a failure."""
    if standing.attempts >= settings.max_attempts or standing.is_late:
        return "give_up"
    if failure.kind == "ambiguous" and not settings.retry_ambiguous:
        return "give_up"
    if standing.has_other:
        return "fallback"
    if standing.retried or not standing.has_budget:
        return "give_up"
    if failure.kind in ("unsent", "ambiguous"):
        return "retry"
    is_short = failure.wait_s is not None and failure.wait_s <= settings.retry_after_max_s
    return "retry" if failure.kind in ("rate_limited", "overloaded") and is_short else "give_up"


def cooling_s(failure: Failure) -> float:
    """Return how long a credential is not used after a 429."""
    return _DEFAULT_COOLING_S if failure.wait_s is None else min(failure.wait_s, _MOST_COOLING_S)


class Budget:
    """The retry budget. A success returns a tenth of a retry; below half of the budget no retry is made."""

    def __init__(self, size: int) -> None:
        self._size = self._left = float(size)

    @property
    def has_some(self) -> bool:
        """True if a retry may be made."""
        return self._left > self._size / 2

    def spend(self) -> None:
        """Take a retry."""
        self._left = max(self._left - 1, 0.0)

    def earn(self) -> None:
        """Record a success."""
        self._left = min(self._left + 0.1, self._size)


def _wait_s(fields: Mapping[bytes, bytes]) -> float | None:
    """Return the wait that a response asks for, from the most precise header."""
    if (milliseconds := _number(fields.get(b"retry-after-ms"))) is not None:
        return milliseconds / 1000
    if (seconds := _number(fields.get(b"retry-after"))) is not None:
        return seconds
    resets = [
        reset
        for remaining, name in _RESETS
        if (reset := _duration(fields.get(name))) is not None and fields.get(remaining, b"0").strip() == b"0"
    ]
    return max(resets, default=None)


def _number(value: bytes | None) -> float | None:
    return float(value) if value is not None and _NUMBER.fullmatch(value := value.strip()) else None


def _duration(value: bytes | None) -> float | None:
    """Return the seconds of a duration in Go's format (`6m0s`, `17ms`), or of a plain number."""
    if value is None or not (value := value.strip()):
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    found = _DURATION.fullmatch(value)
    if found is None:
        return None
    hours, minutes, whole, thousandths = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000
