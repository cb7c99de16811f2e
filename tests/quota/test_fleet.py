"""Quotas hold through every history of the simulated fleet, and each known way to get them wrong is found out.

A mutant replaces one small method. That the kit finds it, with few sidecars and few seeds, is what makes the histories
without a violation worth something.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest

from tests.quota.fleet import LIMIT, Database, Faults, Fleet, Violation
from tests.quota.fleet_sidecar import Entry, Request, Sidecar
from tests.quota.ledger_model import NOTHING, Caller, Grant, Lease, LedgerModel, Release, Units

SEEDS = range(4)
MUTANT_SEEDS = range(12)


def storm(seed: int) -> Faults:
    """From 5 % to 30 % of the answers lost, and everything else that can go wrong."""
    lost = 0.05 + 0.25 * (seed % 8) / 7
    return Faults(lost=lost, twice=0.05, kills=1.0, pauses=0.7, deletions=0.1, outages=2, wobble_s=2.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_fleet_when_everything_fails_then_nothing_is_overspent_forgotten_or_leaked(seed: int) -> None:
    fleet = Fleet(seed, 100, storm(seed))
    _run(fleet, seed)
    assert min(fleet.counts[fault] for fault in ("killed", "paused", "deleted", "lost", "late", "refused")) > 0
    assert fleet.counts["admitted"] > 1000
    assert _best_use(fleet) > 0.9


def test_fleet_when_nothing_fails_then_the_whole_limit_can_be_used() -> None:
    fleet = Fleet(0, 100, Faults())
    _run(fleet, 0)
    assert _best_use(fleet) > 0.99
    assert all(window.burned == NOTHING for quota in fleet.database.ledger.quotas.values() for window in quota.windows)


def test_fleet_when_the_seed_is_the_same_then_so_is_the_history() -> None:
    histories = []
    for _ in range(2):
        fleet = Fleet(1, 10, storm(1))
        fleet.run()
        histories.append((fleet.counts, fleet.truth.spent, fleet.now))
    assert histories[0] == histories[1]


class RefundOnExpiry(LedgerModel):
    """A lease that expired is given to others, though its holder may only be paused."""

    def _expire(self, lease: Lease, at: datetime) -> None:
        self._shrink(lease, Release(lease.id, lease.caller, ended=True), at)


class CheckThenSpend(LedgerModel):
    """What is left is looked up, and subtracted when it has been spent."""

    def acquire(
        self, caller: Caller, lease_id: str, holder: str, need: Units, want: Units, ttl: timedelta, at: datetime
    ) -> Grant:
        grant = super().acquire(caller, lease_id, holder, need, want, ttl, at)
        self._shrink(self.leases[lease_id], Release(lease_id, caller), at)
        return grant


class NoTombstones(LedgerModel):
    """A wish that arrives after its lease was ended is granted."""

    def release(self, releases: Iterable[Release], at: datetime) -> None:
        super().release([release for release in releases if release.lease_id in self.leases], at)


class SettleCurrentWindow(LedgerModel):
    """A charge counts in the window in which it arrives."""

    def _book(self, lease: Lease, units: Units, at: datetime) -> Units:
        over = super()._book(lease, units, at)
        lease.window.settled -= units
        self.quotas[lease.caller].window.settled += units
        return over


class SettleReplays(Database):
    """A record that is sent again is settled again."""

    def is_new(self, entry: Entry) -> bool:
        return True


class SettleCurrentLease(Sidecar):
    """A charge is booked on the lease at hand, not on those that the request was admitted by."""

    def write_charge(self, request_id: str, caller: Caller, shares: tuple[tuple[str, Units], ...]) -> None:
        leases = self.accounts[caller].leases if caller in self.accounts else []
        total = sum((units for _, units in shares), NOTHING)
        super().write_charge(request_id, caller, ((leases[-1].id, total),) if leases else shares)


class NoIntents(Sidecar):
    """Requests are journaled when they end."""

    def write_intent(self, request: Request) -> None:
        pass


class NewIdOnRetry(Sidecar):
    """A wish without an answer is repeated as another wish."""

    def unanswered(self, caller: Caller) -> None:
        self.asking[caller].lease_id = self.new_id()
        self.write_lease_intent(self.asking[caller].lease_id, caller)
        super().unanswered(caller)


class LeaseNotJournaled(Sidecar):
    """A lease is known to memory alone."""

    def write_lease_intent(self, lease_id: str, caller: Caller) -> None:
        pass


class EndsBeforeCharges(Sidecar):
    """After a kill, leases are given back before what ran on them is charged."""

    def recover(self, requests: list[Entry], leases: list[Entry]) -> None:
        super().recover([], leases)
        super().recover(requests, [])


@pytest.mark.parametrize(
    ("mutant", "complaint"),
    [
        (RefundOnExpiry, "overspent|forgotten"),
        (CheckThenSpend, "overspent|forgotten"),
        (NoTombstones, "leak"),
        (SettleCurrentWindow, "forgotten|wrong"),
        (SettleReplays, "wrong|beyond"),
        (SettleCurrentLease, "wrong|beyond|forgotten"),
        (NoIntents, "forgotten"),
        (NewIdOnRetry, "leak"),
        (LeaseNotJournaled, "leak"),
        (EndsBeforeCharges, "forgotten|beyond|overspent"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_mutant_is_found_out(mutant: type, complaint: str) -> None:
    with pytest.raises(Violation, match=complaint):
        for seed in MUTANT_SEEDS:
            _mutated(seed, mutant).run()


def _mutated(seed: int, mutant: type) -> Fleet:
    place = next(place for place in (LedgerModel, Database, Sidecar) if issubclass(mutant, place))
    return Fleet(seed, 20, storm(seed), **{_PLACES[place]: mutant})


_PLACES: dict[type, str] = {LedgerModel: "ledger", Database: "database", Sidecar: "sidecar"}


def _run(fleet: Fleet, seed: int) -> None:
    try:
        fleet.run()
    except Violation as violation:
        raise Violation(f"seed {seed}, {violation}") from violation


def _best_use(fleet: Fleet) -> float:
    """Return the part of its limit that was used in the window used most."""
    return max(max(spent.tokens / LIMIT.tokens, spent.nanos / LIMIT.nanos) for spent in fleet.truth.spent.values())
