"""Limits shorter than a day, of one caller on one replica: requests and tokens per minute, requests at the same time.

A limit per minute is a bucket that refills all the time (GCRA), so waits are short and known to the millisecond. Its
whole state is the instant at which it will be full again:

         now                 full_at              admit: full_at moves on by 60 s / limit for every unit
    ------+---- used --------+------------ rest   settle: and back for what was not used
          '-------- 60 s, the whole limit ------'

After a pause the whole limit can be used at once, and goes on refilling meanwhile. Each replica gets an even share of
the project's limit, at least one. A request of more tokens than a share holds, but not than the project's limit, is
admitted by a full bucket and leaves it overdrawn: what one replica would serve, several do not refuse.

Rule of the file: constant cost, no history. Times are monotonic seconds and passed in. Nothing is taken by a refusal.
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
"""Sums of floats are trusted no further than this."""
_CONCURRENT_RETRY_S: Final = 1.0
"""Nobody knows when a running request will end."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not admitted."""

    dimension: Dimension
    limit: int
    """Of the project."""
    share: int
    """Of it, this replica's."""
    remaining: int
    requested: int
    retry_after_s: float | None
    """`None`: the request is larger than the limit, so no wait would help."""


class Bucket:
    """One limit per minute. The share is full at first."""

    __slots__ = ("_full_at", "_limit", "_share", "_unit_s")

    def __init__(self) -> None:
        self._full_at = -math.inf
        self.configure(1, 1)

    def configure(self, limit: int, share: int) -> None:
        """Set the limit of the project and what of it is this replica's. The part that is used stays the same."""
        self._limit = limit
        self._share = share
        self._unit_s = _WINDOW_S / share

    def remaining(self, now: float) -> int:
        """Return the whole units that are there."""
        room_s = _WINDOW_S - self._used_s(now) + self._rounding_s
        return min(max(math.floor(room_s / self._unit_s), 0), self._share)

    def wait_s(self, units: int, now: float) -> float:
        """Return how long until `units` are there: 0 if they are, infinity if they never will be."""
        if units > self._limit:
            return math.inf
        wait_s = self._used_s(now) + min(units, self._share) * self._unit_s - _WINDOW_S
        return wait_s if wait_s > self._rounding_s else 0.0

    def take(self, units: int, now: float) -> None:
        """Use so many units, there or not; a negative number gives them back, but never makes it more than full."""
        self._full_at = max(self._full_at, now) + units * self._unit_s

    def standing(self, now: float) -> Standing:
        """Return how it stands."""
        return Standing(self._share, self.remaining(now), self._used_s(now))

    def refusal(self, dimension: Dimension, requested: int, wait_s: float, now: float) -> Refusal:
        """Say why `requested` units cannot be had."""
        retry_after_s = wait_s if math.isfinite(wait_s) else None
        return Refusal(dimension, self._limit, self._share, self.remaining(now), requested, retry_after_s)

    def is_full(self, now: float) -> bool:
        """Nothing of it is used."""
        return self._full_at <= now

    @property
    def _rounding_s(self) -> float:
        """Never as much as a unit."""
        return min(_ROUNDING_S, self._unit_s / 2)

    def _used_s(self, now: float) -> float:
        return max(self._full_at - now, 0.0)


class ShortWindows:
    """The short windows of one caller. Without a limit until configured."""

    def __init__(self) -> None:
        self._buckets: dict[Dimension, Bucket] = {}
        self._concurrent: int | None = None
        self._concurrent_share = 0
        self._running = 0

    def configure(self, policy: ProjectQuota, holders: int) -> None:
        """Take over a project's limits, shared evenly by `holders` replicas; what is used stays used."""
        self._set("requests", policy.requests_per_minute, holders)
        self._set("tokens", policy.tokens_per_minute, holders)
        self._concurrent = policy.concurrent_requests
        self._concurrent_share = _share(policy.concurrent_requests or 0, holders)

    def admit(self, tokens: int, now: float) -> Refusal | None:
        """Take a request's place in every window, or return the window that keeps it waiting longest."""
        asked: Mapping[Dimension, int] = {"requests": 1, "tokens": tokens}
        refusal = self._longest_wait(asked, now)
        if refusal is not None:
            return refusal
        for dimension, bucket in self._buckets.items():
            bucket.take(asked[dimension], now)
        self._running += 1
        return None

    def settle(self, tokens_reserved: int, tokens_used: int, now: float) -> None:
        """End a request that was admitted: free its place, and correct its tokens to what it used.

        Requests that began before there were limits may end here too; the count never falls below zero.
        """
        self._running = max(self._running - 1, 0)
        if (bucket := self._buckets.get("tokens")) is not None:
            bucket.take(tokens_used - tokens_reserved, now)

    def state(self, now: float) -> Mapping[Dimension, Standing]:
        """Return how each limit per minute stands on this replica; those that are off are missing."""
        return {dimension: bucket.standing(now) for dimension, bucket in self._buckets.items()}

    def is_idle(self, now: float) -> bool:
        """Tell whether these could be forgotten and made anew without anybody gaining by it."""
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
