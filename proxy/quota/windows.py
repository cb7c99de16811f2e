"""Limits for less than a day, of one caller on one replica: requests and tokens per minute, concurrent requests.

A limit per minute is a bucket that refills continuously (GCRA), so waits are short and known to the millisecond. Its
only state is the time at which it will be full again:

         now                 full_at              admit: full_at moves on by 60 s / limit for every unit
    ------+---- used --------+------------ rest   settle: and back for what was not used
          '-------- 60 s, the whole limit ------'

After a pause the whole limit can be used at once, and refills meanwhile. Each replica gets an even share of the
project's limit, at least one unit. A request for more tokens than a share, but not than the project's limit, is
admitted by a full bucket and overdraws it: what one replica would serve, several do not refuse.

Rule of the file: constant cost, no history. Times are monotonic seconds and passed in. A refusal consumes nothing.
Source: ATM Forum TM 4.0, "Generic Cell Rate Algorithm", virtual scheduling.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from proxy.quota.headers import Standing
from proxy.quota.limits import ProjectQuota

Dimension = Literal["requests", "tokens", "concurrent"]

_WINDOW_S: Final = 60.0
_ROUNDING_S: Final = 1e-6
"""Tolerance for sums of floats."""
_CONCURRENT_RETRY_S: Final = 1.0
"""An arbitrary wait: nobody knows when a running request will end."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not admitted."""

    dimension: Dimension
    limit: int
    """The project's limit."""
    share: int
    """This replica's part of it."""
    remaining: int
    requested: int
    retry_after_s: float | None
    """`None`: the request exceeds the whole limit, so waiting does not help."""


class Bucket:
    """One limit per minute. The share is full at first."""

    __slots__ = ("_full_at", "_limit", "_share", "_unit_s")

    def __init__(self) -> None:
        self._full_at = -math.inf
        self.configure(1, 1)

    def configure(self, limit: int, share: int) -> None:
        """Set the project's limit and this replica's share. The used fraction stays the same."""
        self._limit = limit
        self._share = share
        self._unit_s = _WINDOW_S / share

    def remaining(self, now: float) -> int:
        """Return the available whole units."""
        room_s = _WINDOW_S - self._used_s(now) + self._rounding_s
        return min(max(math.floor(room_s / self._unit_s), 0), self._share)

    def wait_s(self, units: int, now: float) -> float:
        """Return the time until `units` are available: 0 if they are, infinity if they never will be."""
        if units > self._limit:
            return math.inf
        wait_s = self._used_s(now) + min(units, self._share) * self._unit_s - _WINDOW_S
        return wait_s if wait_s > self._rounding_s else 0.0

    def take(self, units: int, now: float) -> None:
        """Use units, available or not; a negative number returns them, up to the limit."""
        self._full_at = max(self._full_at, now) + units * self._unit_s

    def standing(self, now: float) -> Standing:
        """Return the state of the limit."""
        return Standing(self._share, self.remaining(now), self._used_s(now))

    def refusal(self, dimension: Dimension, requested: int, wait_s: float, now: float) -> Refusal:
        """Return the refusal of `requested` units."""
        retry_after_s = wait_s if math.isfinite(wait_s) else None
        return Refusal(dimension, self._limit, self._share, self.remaining(now), requested, retry_after_s)

    def is_full(self, now: float) -> bool:
        """True if nothing of it is used."""
        return self._full_at <= now

    @property
    def _rounding_s(self) -> float:
        """Tolerance in seconds, always less than one unit."""
        return min(_ROUNDING_S, self._unit_s / 2)

    def _used_s(self, now: float) -> float:
        return max(self._full_at - now, 0.0)


class ShortWindows:
    """The short windows of one caller. Unlimited until configured."""

    def __init__(self) -> None:
        self._buckets: dict[Dimension, Bucket] = {}
        self._concurrent: int | None = None
        self._concurrent_share = 0
        self._running = 0

    def configure(self, policy: ProjectQuota, holders: int) -> None:
        """Apply a project's limits, shared evenly by `holders` replicas; usage is kept."""
        self._set("requests", policy.requests_per_minute, holders)
        self._set("tokens", policy.tokens_per_minute, holders)
        self._concurrent = policy.concurrent_requests
        self._concurrent_share = _share(policy.concurrent_requests or 0, holders)

    def admit(self, tokens: int, now: float) -> Refusal | None:
        """Count a request in every window, or return the refusal with the longest wait."""
        asked: Mapping[Dimension, int] = {"requests": 1, "tokens": tokens}
        refusal = self._longest_wait(asked, now)
        if refusal is not None:
            return refusal
        for dimension, bucket in self._buckets.items():
            bucket.take(asked[dimension], now)
        self._running += 1
        return None

    def settle(self, tokens_reserved: int, tokens_used: int, now: float) -> None:
        """End an admitted request: free its place, and correct its tokens to its usage.

        Requests that began before there were limits may end here too; counts never fall below zero.
        """
        self._running = max(self._running - 1, 0)
        if (bucket := self._buckets.get("tokens")) is not None:
            bucket.take(tokens_used - tokens_reserved, now)

    def state(self, now: float) -> Mapping[Dimension, Standing]:
        """Return the state of each limit per minute on this replica; disabled ones are missing."""
        return {dimension: bucket.standing(now) for dimension, bucket in self._buckets.items()}

    def is_idle(self, now: float) -> bool:
        """Tell whether these windows could be dropped and recreated without any advantage to the caller."""
        return self._running == 0 and all(bucket.is_full(now) for bucket in self._buckets.values())

    def _set(self, dimension: Dimension, limit: int | None, holders: int) -> None:
        if limit is None:
            self._buckets.pop(dimension, None)
        else:
            self._buckets.setdefault(dimension, Bucket()).configure(limit, _share(limit, holders))

    def _longest_wait(self, asked: Mapping[Dimension, int], now: float) -> Refusal | None:
        waits = {dimension: bucket.wait_s(asked[dimension], now) for dimension, bucket in self._buckets.items()}
        dimension = max(waits, key=waits.__getitem__, default=None)
        if dimension is not None and waits[dimension] > 0:
            return self._buckets[dimension].refusal(dimension, asked[dimension], waits[dimension], now)
        if self._concurrent is not None and self._running >= self._concurrent_share:
            return Refusal("concurrent", self._concurrent, self._concurrent_share, 0, 1, _CONCURRENT_RETRY_S)
        return None


def _share(limit: int, holders: int) -> int:
    """Return an even part, at least one; `holders` may be 0 before this replica holds anything."""
    return max(limit // max(holders, 1), 1)
