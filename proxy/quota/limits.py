"""A project's quota rules, in `projects.config->'quota'`, over the defaults of the configuration.

    {"onDatabaseOutage": "capped:5.00", "requestsPerMinute": 60, "tokensPerMinute": 90000, "concurrentRequests": 8,
     "maxTokensDaily": 1000000, "maxCostDaily": 10.0}

Rule of the file: anybody with SQL access may write this document, so it is validated member by member. An invalid one
keeps its default and is reported as a problem; values are never quoted. The daily limits apply to callers seen for the
first time and are read by PostgreSQL itself; here they are only validated. Pure, never raises.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from proxy.config.names import did_you_mean, nearest, shown
from proxy.config.quota import Quota

OutagePolicy = Literal["closed", "lease", "open", "capped"]

_MOST_PER_MINUTE: Final = (1 << 31) - 1
_MOST_TOKENS_DAILY: Final = 10**15
_MOST_DOLLARS: Final = 1_000_000
_DOLLAR_DIGITS: Final = 9
_MOST_TOLD: Final = 20
"""Problems that are told: to find what a misspelt name means takes a millisecond."""


@dataclass(frozen=True, slots=True)
class ProjectQuota:
    """The rules of one project. A limit that is `None` is off."""

    outage: OutagePolicy
    cap_nanos: int = 0
    """What each replica serves to each caller while PostgreSQL is unavailable; used under `capped` only."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    @property
    def has_short_windows(self) -> bool:
        """True if there is a limit for less than a day."""
        return not (self.requests_per_minute is self.tokens_per_minute is self.concurrent_requests is None)


def parse(text: str | None, settings: Quota) -> tuple[ProjectQuota, tuple[str, ...]]:
    """Return the effective rules and the problems of `text`: the JSON of the member, `None` if there is none."""
    try:
        # Decimals are exact; an absurd exponent is an ArithmeticError.
        document = None if text is None else json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return _rules({}, settings), ("quota is not a JSON document that can be read",)
    members = document if isinstance(document, dict) else {}
    good = {name: value for name, value in members.items() if name in _MEMBERS and _MEMBERS[name][0](value)}
    return _rules(good, settings), validate(document)


def validate(document: object) -> tuple[str, ...]:
    """Return the first problems of a decoded document, one line each. `None` (no document) has none."""
    if document is None:
        return ()
    if not isinstance(document, Mapping):
        return ("quota must be a JSON object",)
    problems = (_problem(name, value) for name, value in document.items())
    return tuple(islice((problem for problem in problems if problem is not None), _MOST_TOLD))


def _rules(members: Mapping[str, Any], settings: Quota) -> ProjectQuota:
    """Build the rules from valid members."""
    policy, _, cap = members.get("onDatabaseOutage", settings.on_database_outage).partition(":")
    return ProjectQuota(
        outage=cast(OutagePolicy, policy),
        cap_nanos=int(Decimal(cap or 0).scaleb(_DOLLAR_DIGITS)),
        requests_per_minute=members.get("requestsPerMinute"),
        tokens_per_minute=members.get("tokensPerMinute"),
        concurrent_requests=members.get("concurrentRequests"),
    )


def _problem(name: str, value: object) -> str | None:
    if name not in _MEMBERS:
        return f"quota has no member {shown(name)}{did_you_mean(nearest(name, _MEMBERS))}"
    is_right, expected = _MEMBERS[name]
    return None if is_right(value) else f"{name} must be {expected}"


def _is_outage_policy(value: object) -> bool:
    """Validate like the configuration's key, which has the same format."""
    try:
        Quota.model_validate({"on_database_outage": value})
    except ValidationError:
        return False
    return True


def _is_per_minute(value: object) -> bool:
    return value is None or (type(value) is int and 1 <= value <= _MOST_PER_MINUTE)


def _is_token_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS_DAILY


def _is_dollars(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    amount = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    return amount.is_finite() and 0 <= amount <= _MOST_DOLLARS and amount == round(amount, _DOLLAR_DIGITS)


_COUNT: Final = (_is_per_minute, f"a whole number from 1 to {_MOST_PER_MINUTE}, or null for no limit")
_MEMBERS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "onDatabaseOutage": (_is_outage_policy, "closed, lease, open or capped:<dollars>, for example capped:5.00"),
    "requestsPerMinute": _COUNT,
    "tokensPerMinute": _COUNT,
    "concurrentRequests": _COUNT,
    "maxTokensDaily": (_is_token_count, f"a whole number from 0 to {_MOST_TOKENS_DAILY}"),
    "maxCostDaily": (_is_dollars, f"dollars from 0 to {_MOST_DOLLARS} with at most {_DOLLAR_DIGITS} decimals"),
}
