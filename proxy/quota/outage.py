"""What happens to requests that need PostgreSQL while it is unavailable.

    never reached so far   wait for the first contact until `cold_start_wait_s` after the start, then as below
    closed                 refused, even if units are held (`Reservations`)
    lease                  served from units held; before any contact from a share of the default limits
    capped:<dollars>       that much more per caller on this replica
    open                   served

A request admitted here has no lease; PostgreSQL books its charge once it is back, even past the limit. docs/quotas.md
says how much can be overspent.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from proxy.config.quota import Quota
from proxy.errors import DatabaseUnavailable
from proxy.nouns.holds import Bound, Unleased
from proxy.quota import refusals
from proxy.quota.caller import USEFUL_TOKENS, Admission, Caller, Waiter, fits, lowered, lowered_to
from proxy.quota.tally import QuotaTally

_ANY: Final = 1 << 62
_CROWD: Final = 4
"""An answer without a maximum gets at most one part in so many of what is left: nobody knows when more comes."""


class Outage:
    """Tracks whether PostgreSQL answers, and decides while it does not. Unavailable until the first answer."""

    def __init__(self, settings: Quota, tally: QuotaTally, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._tally = tally
        self._clock = clock
        self._started = clock()
        self._contact = asyncio.Event()
        self._answered_at = -math.inf
        self.is_away = True

    def follow(self, settings: Quota) -> None:
        """Apply a changed configuration."""
        self._settings = settings

    @property
    def was_reached(self) -> bool:
        """PostgreSQL has answered at least once since the start."""
        return self._contact.is_set()

    def note_answer(self) -> None:
        """PostgreSQL has answered."""
        self.is_away = False
        self._answered_at = self._clock()
        self._contact.set()

    def note_silence(self, asked_at: float) -> None:
        """PostgreSQL did not answer in the time that a request may wait.

        If it has answered anything else since then, one statement is slow, or waits for a lock: no outage for others.
        """
        self.is_away = self._answered_at < asked_at

    async def first_contact(self) -> None:
        """Wait until PostgreSQL has answered for the first time.

        Raises:
            DatabaseUnavailable: it has answered before, or the time for a start is over.
        """
        wait_s = self._started + self._settings.cold_start_wait_s - self._clock()
        if not self.was_reached and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._contact.wait()
            except TimeoutError:
                pass
        if self.is_away:
            raise DatabaseUnavailable("PostgreSQL is unavailable.")

    def decide(self, caller: Caller, now: float) -> None:
        """Admit or refuse all waiting requests."""
        while caller.waiters:
            waiter = caller.waiters.popleft()
            if waiter.admitted.done():
                continue
            admission = self._from_spare(caller, waiter, now) or self._without_lease(caller, waiter.wanted)
            if admission is not None:
                waiter.admitted.set_result(admission)
            else:
                self._tally.deny("outage")
                waiter.admitted.set_exception(refusals.unavailable())

    def _from_spare(self, caller: Caller, waiter: Waiter, now: float) -> Admission | None:
        """Serve from units held, with a lower maximum if the whole does not fit."""
        if caller.policy.outage not in ("lease", "capped"):
            return None
        level = _fitting(waiter.wanted, caller.account.spare(now))
        parts = None if level is None else caller.account.take(level.tokens, level.cost_nanos, now)
        return None if level is None or parts is None else Admission(level, parts)

    def _without_lease(self, caller: Caller, wanted: Bound) -> Admission | None:
        """Serve what the rule allows beyond units held."""
        unleased, room = self._leave(caller)
        bound = _fitting(wanted, room)
        if unleased is None or bound is None:
            return None
        caller.unleased_tokens += bound.tokens
        caller.unleased_nanos += bound.cost_nanos
        self._tally.admit_without_lease(unleased)
        return Admission(bound, [], unleased)

    def _leave(self, caller: Caller) -> tuple[Unleased | None, tuple[int, int]]:
        """Return the rule that admits requests without a lease, and how many more tokens and nano-dollars it allows."""
        policy, settings = caller.policy, self._settings
        if policy.outage == "open":
            return "open", (_ANY, _ANY)
        if policy.outage == "capped":
            return "capped", (_ANY, policy.cap_nanos - caller.unleased_nanos)
        if policy.outage == "lease" and not self.was_reached:
            tokens = settings.default_tokens_daily * settings.cold_start_share
            nanos = float(settings.default_cost_daily) * 1_000_000_000 * settings.cold_start_share
            return "cold", (int(tokens) - caller.unleased_tokens, int(nanos) - caller.unleased_nanos)
        return None, (0, 0)


def _fitting(wanted: Bound, room: tuple[int, int]) -> Bound | None:
    """Return `wanted` if it fits, else with a lower maximum that leaves something for others; `None`: impossible.

    A stream gets a maximum too and does not grow, as nothing could be granted to it later.
    """
    if fits(wanted, room):
        return wanted
    most = lowered_to(wanted, room)
    if most is None:
        return None
    fair = lowered_to(wanted, (room[0] // _CROWD, room[1] // _CROWD))
    return lowered(wanted, min(most.output_tokens, max(fair.output_tokens if fair else 0, USEFUL_TOKENS)))
