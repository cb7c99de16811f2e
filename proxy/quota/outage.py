"""What becomes of requests that need PostgreSQL while it is away.

    never reached so far   wait for the first contact until `cold_start_wait_s` after the start, then as below
    closed                 refused, also what is held (`Reservations`)
    lease                  served from what is held; before any contact from a share of the default limits
    capped:<dollars>       so much more per caller on this replica
    open                   served

What is admitted here has no lease; PostgreSQL books its charge once it is back, also past the limit. The most that can
be spent too much stands in docs/quotas.md.
"""

import asyncio
from collections.abc import Callable

from proxy.config.quota import Quota
from proxy.errors import DatabaseUnavailable
from proxy.holds import Bound
from proxy.quota import refusals
from proxy.quota.caller import Admission, Caller, Waiter, lowered_to
from proxy.quota.reservation import Unleased
from proxy.quota.tally import QuotaTally


class Outage:
    """Knows whether PostgreSQL answers, and decides while it does not. Away until the first answer."""

    def __init__(self, settings: Quota, tally: QuotaTally, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._tally = tally
        self._clock = clock
        self._started = clock()
        self._contact = asyncio.Event()
        self.is_away = True

    @property
    def was_reached(self) -> bool:
        """PostgreSQL has answered at least once since the start."""
        return self._contact.is_set()

    def note_answer(self) -> None:
        """PostgreSQL has answered."""
        self.is_away = False
        self._contact.set()

    def note_silence(self) -> None:
        """PostgreSQL did not answer in the time that a request may wait."""
        self.is_away = True

    async def first_contact(self) -> None:
        """Return once PostgreSQL has answered for the first time.

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
            raise DatabaseUnavailable("PostgreSQL is away.")

    def decide(self, caller: Caller, now: float) -> None:
        """Admit or refuse all who wait."""
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
        if caller.policy.outage != "lease":
            return None
        level = lowered_to(waiter.wanted, caller.account.spare(now))
        parts = None if level is None else caller.account.take(level.tokens, level.cost_nanos, now)
        return None if level is None or parts is None else Admission(level, parts)

    def _without_lease(self, caller: Caller, bound: Bound) -> Admission | None:
        unleased = self._leave(caller, bound)
        if unleased is None:
            return None
        caller.unleased_tokens += bound.tokens
        caller.unleased_nanos += bound.cost_nanos
        self._tally.admit_without_lease(unleased)
        return Admission(bound, [], unleased)

    def _leave(self, caller: Caller, bound: Bound) -> Unleased | None:
        """Return by which rule a request may go without a lease, `None` if it may not."""
        policy, settings = caller.policy, self._settings
        nanos = caller.unleased_nanos + bound.cost_nanos
        if policy.outage == "open":
            return "open"
        if policy.outage == "capped":
            return "capped" if nanos <= policy.cap_nanos else None
        if policy.outage == "lease" and not self.was_reached:
            tokens = caller.unleased_tokens + bound.tokens
            most_nanos = int(settings.default_cost_daily * 1_000_000_000)
            share = settings.cold_start_share
            return "cold" if tokens <= settings.default_tokens_daily * share and nanos <= most_nanos * share else None
        return None
