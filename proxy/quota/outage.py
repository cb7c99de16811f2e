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
from typing import Final

from proxy.config.quota import Quota
from proxy.errors import DatabaseUnavailable
from proxy.holds import Bound
from proxy.quota import refusals
from proxy.quota.caller import USEFUL_TOKENS, Admission, Caller, Waiter, fits, lowered, lowered_to
from proxy.quota.reservation import Unleased
from proxy.quota.tally import QuotaTally

_ANY: Final = 1 << 62
_CROWD: Final = 4
"""An answer without a maximum gets no more than one part in so many of what is left: nobody can say when more comes."""


class Outage:
    """Knows whether PostgreSQL answers, and decides while it does not. Away until the first answer."""

    def __init__(self, settings: Quota, tally: QuotaTally, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._tally = tally
        self._clock = clock
        self._started = clock()
        self._contact = asyncio.Event()
        self.is_away = True

    def follow(self, settings: Quota) -> None:
        """Take over a changed configuration."""
        self._settings = settings

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
        """Serve from what is held, with a lower maximum where the whole does not fit."""
        if caller.policy.outage not in ("lease", "capped"):
            return None
        level = _fitting(waiter.wanted, caller.account.spare(now))
        parts = None if level is None else caller.account.take(level.tokens, level.cost_nanos, now)
        return None if level is None or parts is None else Admission(level, parts)

    def _without_lease(self, caller: Caller, wanted: Bound) -> Admission | None:
        """Serve from what the rule allows beyond it."""
        unleased, room = self._leave(caller)
        bound = _fitting(wanted, room)
        if unleased is None or bound is None:
            return None
        caller.unleased_tokens += bound.tokens
        caller.unleased_nanos += bound.cost_nanos
        self._tally.admit_without_lease(unleased)
        return Admission(bound, [], unleased)

    def _leave(self, caller: Caller) -> tuple[Unleased | None, tuple[int, int]]:
        """Return by which rule requests may go without a lease, and how many tokens and nano-dollars more."""
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
    """Return `wanted` if it fits, else with a lower maximum that leaves something for others; `None`: not even that.

    A stream gets a maximum too, and does not grow: nobody could let it have more.
    """
    if fits(wanted, room):
        return wanted
    most = lowered_to(wanted, room)
    if most is None:
        return None
    fair = lowered_to(wanted, (room[0] // _CROWD, room[1] // _CROWD))
    return lowered(wanted, min(most.output_tokens, max(fair.output_tokens if fair else 0, USEFUL_TOKENS)))
