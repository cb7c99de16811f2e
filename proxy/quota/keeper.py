"""Renews leases and returns unused ones: one statement per `renew_s` for all callers together.

What PostgreSQL reports about a caller (limits, remainder, other holders, the project's rules) is applied here, whether
it came with a grant or with a renewal. Unused units are returned at once if others want them or the limit was lowered,
after `idle_s` otherwise, and at the end of the window or the process.

Failure mode: a lease that PostgreSQL has lost is not used any more. While PostgreSQL does not answer, leases stay
usable until their window ends (PostgreSQL counts them as burned), and returned units are in the journal.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from proxy.config.quota import Quota
from proxy.errors import DatabaseUnavailable
from proxy.quota import limits
from proxy.quota.caller import Caller
from proxy.quota.callers import Callers
from proxy.quota.lease import Lease, shrink
from proxy.quota.lease_book import LeaseBook
from proxy.quota.ledger import Balance, Grant
from proxy.quota.outage import Outage
from proxy.quota.tally import QuotaTally
from proxy.quota.windows import ShortWindows

_FIRST_TRIES_S = 0.1
_LOOK_S = 15.0
"""How often to check whether PostgreSQL still knows all leases."""
_WARN_PERCENT = (100, 80)
_log = logging.getLogger("sidegate.quota")


class RenewalSource(Protocol):
    """The part of the ledger that renews leases."""

    async def renew(self, lease_ids: Sequence[UUID]) -> Mapping[tuple[str, str], Balance]:
        """Extend the leases; return their callers' balances. Raises DatabaseUnavailable."""

    async def missing(self, lease_ids: Sequence[UUID]) -> Collection[UUID]:
        """Return the ones that PostgreSQL does not know. Raises DatabaseUnavailable."""


class Keeper:
    """Maintains the leases of all callers."""

    def __init__(
        self,
        settings: Quota,
        *,
        ledger: RenewalSource,
        book: LeaseBook,
        callers: Callers,
        outage: Outage,
        tally: QuotaTally,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._book = book
        self._callers = callers
        self._outage = outage
        self._tally = tally
        self._clock = clock
        self._look_at = 0.0
        callers.forget = self._give_all_back

    def follow(self, settings: Quota) -> None:
        """Apply a changed configuration."""
        self._settings = settings

    async def run(self) -> None:
        """Renew until cancelled. Until the first contact try often; later replicas return spread over time."""
        while True:
            await self.renew()
            if self._outage.was_reached:
                part = random.uniform(0.25, 0.75) if self._outage.is_away else 1.0
                await asyncio.sleep(self._settings.renew_s * part)
            else:
                await asyncio.sleep(_FIRST_TRIES_S)

    async def renew(self) -> None:
        """Renew all leases at once; then return what is not needed."""
        begun = self._clock()
        ids = [UUID(lease.id) for caller in self._callers for lease in caller.account.leases]
        try:
            async with asyncio.timeout(self._settings.database_timeout_ms / 1000):
                balances = await self._ledger.renew(ids)
                missing = await self._ledger.missing(ids) if ids and self._is_time_to_look() else ()
        except (DatabaseUnavailable, TimeoutError):
            self._outage.note_silence(begun)
        else:
            self._outage.note_answer()
            self._stop_using(missing)
            for key, balance in balances.items():
                if (caller := self._callers.known(*key)) is not None:
                    self._take_over(caller, balance)
        self.tidy()

    def _is_time_to_look(self) -> bool:
        """Tell whether to check for missing leases: rarely, and after every outage."""
        now = self._clock()
        if self._outage.is_away or now >= self._look_at:
            self._look_at = now + _LOOK_S
            return True
        return False

    def _stop_using(self, lease_ids: Collection[UUID]) -> None:
        """Stop granting from leases that PostgreSQL has lost: it may grant their units to others.

        That happens after a failover to an older copy of the database, or if a quota was deleted. Running requests go
        on and are charged to the window of their time.
        """
        if lease_ids:
            _log.warning("leases are unknown to PostgreSQL", extra={"count": len(lease_ids)})
            for caller in self._callers:
                for lease in caller.account.leases:
                    if UUID(lease.id) in lease_ids:
                        lease.usable_until = 0.0

    def heard(self, caller: Caller, grant: Grant) -> None:
        """Apply the balance that came with a grant."""
        self._take_over(caller, grant.balance)

    def tidy(self) -> None:
        """Return what is not needed; remove callers of which nothing is left."""
        now = self._clock()
        for caller in self._callers:
            for lease in tuple(caller.account.leases):
                self._tidy_lease(caller, lease, now)
            caller.peak = caller.account.reserved[0]
            is_idle = now - caller.used_at > self._settings.idle_s
            if is_idle and not self._outage.is_away:
                caller.unleased_tokens = caller.unleased_nanos = 0
            if is_idle and not caller.account.leases and caller.is_forgettable(now):
                self._callers.drop(caller)

    def give_all_back(self) -> None:
        """Return everything that no request uses; at the end of the process, that is all."""
        for caller in self._callers:
            self._give_all_back(caller)

    def _tidy_lease(self, caller: Caller, lease: Lease, now: float) -> None:
        is_over = now >= lease.usable_until
        is_idle = now - caller.used_at > self._settings.idle_s
        if lease.requests == 0 and (is_over or is_idle or (caller.is_scarce and not caller.waiters)):
            self._end(caller, lease)
        elif (is_over or (caller.is_scarce and not caller.waiters)) and (lease.spare_tokens or lease.spare_nanos):
            self._book.keep(lease.id, caller.key, *shrink(lease))

    def _give_all_back(self, caller: Caller) -> None:
        for lease in tuple(caller.account.leases):
            if lease.requests == 0:
                self._end(caller, lease)

    def _end(self, caller: Caller, lease: Lease) -> None:
        caller.account.drop(lease)
        self._book.end(UUID(lease.id), caller.key)

    def _take_over(self, caller: Caller, balance: Balance) -> None:
        before = caller.balance
        caller.balance, caller.heard_at = balance, self._clock()
        caller.unleased_tokens = caller.unleased_nanos = 0
        if before is None or before.project_quota != balance.project_quota:
            caller.policy, problems = limits.parse(balance.project_quota, self._settings)
            for problem in problems:
                _log.warning("a project's quota rule is ignored", extra={"project": caller.key[1], "reason": problem})
        if caller.policy.has_short_windows:
            caller.windows = caller.windows or ShortWindows()
            caller.windows.configure(caller.policy, balance.holders)
        else:
            caller.windows = None
        self._warn(caller, balance)

    def _warn(self, caller: Caller, balance: Balance) -> None:
        """Report once per window that 80 % and that 100 % of a limit are used."""
        used = max(
            _percent(balance.settled_tokens, balance.max_tokens), _percent(balance.settled_nanos, balance.max_nanos)
        )
        reached = next((percent for percent in _WARN_PERCENT if used >= percent), 0)
        warned = caller.warned[1] if caller.warned[0] == balance.window else 0
        if reached > warned:
            caller.warned = (balance.window, reached)
            self._tally.warn(*caller.key, reached)


def _percent(part: int, whole: int) -> int:
    return 100 * part // whole if whole else 0
