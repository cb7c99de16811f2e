"""The errors for a caller that a limit refuses: which limit, how much of it is left, and when there will be more.

    daily         429 insufficient_quota     the day's tokens or money are used up; SDKs do not retry
    short         429 rate_limit_exceeded    a minute's requests or tokens, or concurrent requests: SDKs wait and retry
    held          429 rate_limit_exceeded    the day has room, but running requests hold it: SDKs wait and retry
    crowded       429 rate_limit_exceeded    too many requests of all callers wait for their quota already
    full          429 rate_limit_exceeded    the caller is new, and so many others are active that none can be forgotten
    unavailable   503 quota_unavailable      PostgreSQL is unavailable, and the project's rule refuses this then

Rule of the file: figures are the caller's own; `insufficient_quota` makes agents give up for good, so only the daily
limits use it. Costs are dollars: exact decimals in messages, JSON numbers in `details`, where fifteen digits are exact.
Pure; times are passed in.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from proxy.errors import QuotaExceeded, QuotaUnavailable, RateLimited
from proxy.nouns.holds import Bound
from proxy.quota.headers import NANOS, dollars, duration
from proxy.quota.lease import Account
from proxy.quota.windows import Dimension, Refusal

if TYPE_CHECKING:  # its module has SQL, this one is pure
    from proxy.quota.ledger import Balance

_NOT_SENT: Final = " The request was not sent to the provider, and nothing was charged for it."
_CUT: Final = " The answer was ended here; what was generated before is charged."
_CROWDED_RETRY_S: Final = 1.0
_HELD_RETRY_S: Final = 5.0
"""An arbitrary wait: nobody knows when running requests will end."""
_OUTAGE_RETRY_S: Final = 2.0
_SHORT_LIMITS: Final[dict[Dimension, str]] = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrent": "requests at the same time",
}


def daily(wanted: Bound, balance: "Balance | None", account: Account, now: float) -> QuotaExceeded:
    """Refuse what the caller's day has no room for.

    `balance`: PostgreSQL's last report, if any. `account`, `now` (monotonic): what is held of it here.
    """
    if balance is None:
        return QuotaExceeded("The daily limit leaves no room for this request." + _NOT_SENT)
    tokens, cost = _days(wanted, balance, account, now)
    day = tokens if tokens.is_short or not cost.is_short else cost
    reset_at = _iso(balance.reset_at)
    return QuotaExceeded(
        f"{day.sentence()} The limit resets at {reset_at}.{_NOT_SENT}",
        details=day.details(),
        reset_at=reset_at,
        retry_after_s=balance.window_s,
    )


def held(wanted: Bound, balance: "Balance", account: Account, now: float) -> RateLimited:
    """Refuse what fits into the day, but not beside what running requests may still use. Arguments as in `daily`."""
    tokens, cost = _days(wanted, balance, account, now)
    day = tokens if tokens.is_short or not cost.is_short else cost
    return RateLimited(
        f"{day.sentence('limit reserved')} Try again in {duration(_HELD_RETRY_S)}.{_NOT_SENT}",
        details={**day.details(), "reason": "reserved", "limitedBy": day.reason},
        retry_after_s=_HELD_RETRY_S,
    )


def cut(refusal: QuotaExceeded) -> QuotaExceeded:
    """Return the error that ends a running answer: the same figures, but the request was sent."""
    return type(refusal)(
        refusal.message.removesuffix(_NOT_SENT) + _CUT,
        details=refusal.details,
        reset_at=refusal.reset_at,
        retry_after_s=refusal.retry_after_s,
    )


def short(refusal: Refusal, now: datetime) -> RateLimited:
    """Refuse what a short window has no room for. `now`: wall clock with time zone, for the time of the reset."""
    limit = f"{refusal.limit:,} {_SHORT_LIMITS[refusal.dimension]} for this user and project"
    if refusal.share != refusal.limit:
        limit += f" ({refusal.share:,} of them on this replica)"
    wait_s = refusal.retry_after_s
    if wait_s is None:
        message = (
            f"This request may use up to {refusal.requested:,} tokens, more than the whole limit of {limit}; waiting "
            "does not help. Lower its maximum output or shorten its input."
        )
    else:
        message = f"Rate limit reached: {limit}, {refusal.remaining:,} left. Try again in {duration(wait_s)}."
    return RateLimited(
        message + _NOT_SENT,
        details={
            "reason": refusal.dimension,
            "window": None if refusal.dimension == "concurrent" else "minute",
            "limit": refusal.limit,
            "replicaLimit": refusal.share,
            "used": refusal.share - refusal.remaining,
            "remaining": refusal.remaining,
            "requested": refusal.requested,
        },
        reset_at=None if wait_s is None else _iso(now + timedelta(milliseconds=math.ceil(wait_s * 1000))),
        retry_after_s=wait_s,
    )


def crowded() -> RateLimited:
    """Refuse another request when too many of all callers wait for others to settle."""
    return RateLimited(
        "Too many requests are waiting for their quota. Try again in a moment." + _NOT_SENT,
        details={"reason": "waiting"},
        retry_after_s=_CROWDED_RETRY_S,
    )


def full(most: int) -> RateLimited:
    """Refuse a caller that is new, as no other can be forgotten. `most`: the callers that are kept."""
    return RateLimited(
        f"This replica already follows {most:,} active callers (quota.max_callers). Try again in a moment.{_NOT_SENT}",
        details={"reason": "callers"},
        retry_after_s=_CROWDED_RETRY_S,
    )


def unavailable() -> QuotaUnavailable:
    """Refuse what cannot be decided while PostgreSQL is unavailable."""
    return QuotaUnavailable(
        "The quota of this user and project cannot be checked at the moment, and the project's rule for that case does "
        "not let this request pass. Try again in a moment.",
        retry_after_s=_OUTAGE_RETRY_S,
    )


@dataclass(frozen=True, slots=True)
class _Day:
    """One dimension of a caller's day, in its own unit."""

    reason: str
    limit: int
    used: int
    reserved: int
    remaining: int
    requested: int

    @property
    def is_short(self) -> bool:
        return self.requested > self.remaining

    def sentence(self, state: str = "limit reached") -> str:
        name, show, unit = ("token", _count, " tokens") if self.reason == "tokens" else ("cost", _price, "")
        text = (
            f"Daily {name} {state}: {show(self.used)} of {show(self.limit)}{unit} are used, "
            f"{show(self.reserved)} reserved by requests that still run, {show(self.remaining)} left; "
            f"this request may use up to {show(self.requested)}."
        )
        if self.requested > self.limit:
            text += " That is more than the whole limit: lower its maximum output, or have the limit raised."
        return text

    def details(self) -> dict[str, str | int | float | None]:
        amounts = {name: getattr(self, name) for name in ("limit", "used", "reserved", "remaining", "requested")}
        if self.reason == "cost":
            amounts = {name: nanos / NANOS for name, nanos in amounts.items()}
        return {"reason": self.reason, "window": "day", **amounts}


def _days(wanted: Bound, balance: "Balance", account: Account, now: float) -> tuple[_Day, _Day]:
    spare, running = account.spare(now), account.reserved
    tokens = _day(
        "tokens",
        balance.max_tokens,
        balance.settled_tokens,
        reserved=running[0] + balance.elsewhere_tokens,
        remaining=max(balance.available_tokens, 0) + spare[0],
        requested=wanted.tokens,
    )
    cost = _day(
        "cost",
        balance.max_nanos,
        balance.settled_nanos,
        reserved=running[1] + balance.elsewhere_nanos,
        remaining=max(balance.available_nanos, 0) + spare[1],
        requested=wanted.cost_nanos,
    )
    return tokens, cost


def _day(reason: str, limit: int, settled: int, *, reserved: int, remaining: int, requested: int) -> _Day:
    """Count as used what is neither left nor reserved, so also charges that PostgreSQL has not booked yet."""
    used = max(limit - reserved - remaining, settled)
    return _Day(reason, limit, used, reserved, remaining, requested)


def _count(tokens: int) -> str:
    return f"{tokens:,}"


def _price(nanos: int) -> str:
    return f"${dollars(nanos)}"


def _iso(at: datetime) -> str:
    at = at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
