"""The ledger of quotas a second time, in plain Python: what the SQL functions have to do, without SQL, clock or I/O.

    limit = available + settled + held + burned                     per window, tokens and nano-dollars alike
                                   |       '--- rest of its expired leases
                                   '----------- rest of its open leases       rest = granted - spent, at least zero

Rule of the file: the plainest form that is right, since it judges the other one (`tests/postgres/test_ledger_model.py`)
and carries the simulated fleet (`tests/quota/fleet.py`). A lease points at its window, and a window that has ended
stays where it is: "late settlements go to the window that granted" needs no code here. Every operation takes the time;
every one first brings the quotas it touches up to date: the next window where one is over, leases expired.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

STARVED_FOR = timedelta(seconds=10)
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Units:
    """Tokens and nano-dollars. Arithmetic is per dimension."""

    tokens: int = 0
    nanos: int = 0

    def __add__(self, other: "Units") -> "Units":
        return Units(self.tokens + other.tokens, self.nanos + other.nanos)

    def __sub__(self, other: "Units") -> "Units":
        return Units(self.tokens - other.tokens, self.nanos - other.nanos)

    def __floordiv__(self, number: int) -> "Units":
        return Units(self.tokens // number, self.nanos // number)

    def least(self, other: "Units") -> "Units":
        return Units(min(self.tokens, other.tokens), min(self.nanos, other.nanos))

    def most(self, other: "Units") -> "Units":
        return Units(max(self.tokens, other.tokens), max(self.nanos, other.nanos))

    def covers(self, other: "Units") -> bool:
        return self.tokens >= other.tokens and self.nanos >= other.nanos


NOTHING = Units()


class Caller(NamedTuple):
    """Whose quota it is. Sorts in the order in which rows are locked."""

    user_id: str
    project_id: str


@dataclass(slots=True)
class Window:
    """A window of one quota; the current one, or as it was archived."""

    number: int
    started_at: datetime
    ends_at: datetime
    limit: Units
    settled: Units = NOTHING
    held: Units = NOTHING
    burned: Units = NOTHING

    @property
    def available(self) -> Units:
        """What can still be granted; negative where a limit was lowered or more was used than granted."""
        return self.limit - self.settled - self.held - self.burned


@dataclass(slots=True, eq=False)
class Lease:
    """A slice of one window that one replica may spend."""

    id: str
    caller: Caller
    window: Window
    holder: str
    granted: Units
    expires_at: datetime
    touched_at: datetime
    spent: Units = NOTHING
    state: Literal["open", "expired", "closed"] = "open"

    @property
    def rest(self) -> Units:
        """What its holder may still spend."""
        return NOTHING if self.state == "closed" else (self.granted - self.spent).most(NOTHING)

    @property
    def over(self) -> Units:
        """What was spent beyond the grant."""
        return (self.spent - self.granted).most(NOTHING)


@dataclass(slots=True, eq=False)
class Quota:
    """A row of `user_quotas`, with its windows, the current one last, and its open leases by id."""

    caller: Caller
    windows: list[Window]
    open: dict[str, Lease] = field(default_factory=dict)
    starved_at: datetime | None = None

    @property
    def window(self) -> Window:
        """The current window."""
        return self.windows[-1]


@dataclass(slots=True)
class Balance:
    """How a caller stands after an operation. `elsewhere`: what others than the asking holder hold."""

    window: int
    window_left: timedelta
    limit: Units
    settled: Units
    available: Units
    elsewhere: Units
    holders: int
    starved: bool = False


@dataclass(slots=True)
class Grant:
    """Answer to the wish for a lease: `units` is nothing if refused. It belongs to the balance's window."""

    units: Units
    ttl: timedelta
    balance: Balance


@dataclass(slots=True)
class Charge:
    """What a final record says about quotas: who bears what, or that nobody does."""

    caller: Caller
    created_at: datetime
    shares: Sequence[tuple[str, Units]] = ()
    unleased: Units | None = None


@dataclass(slots=True)
class Release:
    """A record that gives back all of a lease but `keep`, or, `ended`, all of it for good."""

    lease_id: str
    caller: Caller
    keep: Units = NOTHING
    ended: bool = False


class Settlement(NamedTuple):
    """What settling found: units beyond the grants, and shares of leases that do not exist."""

    over: Units
    unknown: int


class LedgerModel:
    """All quotas. `limits` and `zones` by project; what is not named there has `default` and UTC."""

    def __init__(
        self, default: Units, limits: dict[str, Units] | None = None, zones: dict[str, str] | None = None
    ) -> None:
        self._default = default
        self._limits = limits or {}
        self._zones = {project: ZoneInfo(zone) for project, zone in (zones or {}).items()}
        self.quotas: dict[Caller, Quota] = {}
        self.leases: dict[str, Lease] = {}

    # ------------------------------------------------------------------------------------------------- operations

    def acquire(
        self, caller: Caller, lease_id: str, holder: str, need: Units, want: Units, ttl: timedelta, at: datetime
    ) -> Grant:
        """Grant at least `need`, at best `want`, or nothing. The same id gets the same answer again."""
        quota = self._current(caller, at)
        lease = self.leases.get(lease_id)
        if lease is None:
            units = self._share(quota, holder, need, want, at)
            lease = self._enter(quota, lease_id, holder, units, at + ttl, at)
        units = lease.granted if lease.state == "open" and lease.window is quota.window else NOTHING
        return Grant(units, lease.expires_at - at, self._balance(quota, holder, at))

    def renew(self, lease_ids: Iterable[str], ttl: timedelta, at: datetime) -> dict[Caller, Balance]:
        """Keep leases of one holder, in the current windows, alive; expired ones too: who asks lives."""
        leases = [self.leases[lease_id] for lease_id in lease_ids if lease_id in self.leases]
        answer = {}
        for lease in sorted(leases, key=lambda lease: lease.caller):
            quota = self._current(lease.caller, at)
            if lease.window is quota.window and lease.state != "closed":
                self._lift(lease)
                lease.state = "open"
                lease.expires_at = min(at + ttl, quota.window.ends_at)
                lease.touched_at = at
                self._put(lease)
        for lease in leases:
            answer[lease.caller] = self._balance(self.quotas[lease.caller], lease.holder, at)
        return answer

    def settle(self, charges: Iterable[Charge], at: datetime) -> Settlement:
        """Book charges on the leases that bore them. Not idempotent: a record is settled when it is first stored."""
        over, unknown = NOTHING, 0
        for charge in charges:
            quota = self._current(charge.caller, at)
            for lease_id, units in charge.shares:
                lease = self.leases.get(lease_id)
                if units == NOTHING:
                    continue
                if lease is not None:
                    over += self._book(lease, units, at)
                else:
                    unknown += 1
                    self._window_at(quota, charge.created_at).settled += units
            if charge.unleased is not None:
                self._window_at(quota, charge.created_at).settled += charge.unleased
        return Settlement(over, unknown)

    def release(self, releases: Iterable[Release], at: datetime) -> None:
        """Take back what holders give back. The end of a lease never granted is noted, so that it never will be."""
        for release in releases:
            quota = self.quotas.get(release.caller)
            if quota is not None:
                self._current(release.caller, at)
                lease = self.leases.get(release.lease_id)
                if lease is not None:
                    self._shrink(lease, release, at)
                elif release.ended:
                    self._enter(quota, release.lease_id, "", NOTHING, at, at)

    def reset(self, caller: Caller, at: datetime) -> None:
        """Start a new window in the middle of the day."""
        self._begin_window(self.quotas[caller], at)

    def limit(self, caller: Caller, limit: Units) -> None:
        """Change the limit of the current window and of those that follow."""
        self.quotas[caller].window.limit = limit

    def reconcile(self, grace: timedelta, at: datetime) -> int:
        """Free what expired leases of the current windows burn and nobody has touched for longer than `grace`."""
        freed = 0
        for caller in self.quotas:
            window = self._current(caller, at).window
            for lease in self.leases.values():
                if lease.window is window and lease.state == "expired" and lease.touched_at < at - grace:
                    self._shrink(lease, Release(lease.id, caller, ended=True), at)
                    freed += 1
        return freed

    # ------------------------------------------------------------------------------------------------------- checks

    def faults(self) -> Iterator[str]:
        """Yield what does not add up. Cost: all leases."""
        sums: dict[tuple[int, str], Units] = {}
        for lease in self.leases.values():
            key = (id(lease.window), lease.state)
            sums[key] = sums.get(key, NOTHING) + lease.rest
        for quota in self.quotas.values():
            for window in quota.windows:
                for name, state in (("held", "open"), ("burned", "expired")):
                    counted, summed = getattr(window, name), sums.get((id(window), state), NOTHING)
                    if counted != summed:
                        yield f"{quota.caller} window {window.number}: {name} {counted}, its leases {summed}"
                if not window.settled.covers(NOTHING):
                    yield f"{quota.caller} window {window.number}: settled {window.settled}"

    # ------------------------------------------------------------------------------------------------------ windows

    def _current(self, caller: Caller, at: datetime) -> Quota:
        """Return the quota, made if it is new, as of `at`: in the window of that time, with leases expired."""
        quota = self.quotas.get(caller)
        if quota is None:
            limit = self._limits.get(caller.project_id, self._default)
            day, next_day = self._day(caller.project_id, at)
            quota = self.quotas[caller] = Quota(caller, [Window(1, day, next_day, limit)])
        if quota.window.ends_at <= at:
            self._begin_window(quota, at)
        for lease in [lease for lease in quota.open.values() if lease.expires_at <= at]:
            self._expire(lease, at)
        return quota

    def _begin_window(self, quota: Quota, at: datetime) -> None:
        ended = quota.window
        ended.ends_at = min(ended.ends_at, at)
        day, next_day = self._day(quota.caller.project_id, at)
        quota.windows.append(Window(ended.number + 1, max(day, ended.ends_at), next_day, ended.limit))
        quota.starved_at = None

    def _window_at(self, quota: Quota, created_at: datetime) -> Window:
        """Return the window that contains a time; the current one where none does."""
        for window in reversed(quota.windows[:-1]):
            if window.started_at <= created_at < window.ends_at and created_at < quota.window.started_at:
                return window
        return quota.window

    def _day(self, project_id: str, at: datetime) -> tuple[datetime, datetime]:
        """Return the first moments of the calendar day that contains `at` and of the next, where the project is."""
        zone = self._zones.get(project_id, _UTC)
        today = at.astimezone(zone).date()
        return _midnight(today, zone), _midnight(today + timedelta(days=1), zone)

    # ------------------------------------------------------------------------------------------------------- leases

    def _share(self, quota: Quota, holder: str, need: Units, want: Units, at: datetime) -> Units:
        """Return what to grant: with others around, beyond the need not more than a part of what is left."""
        available = quota.window.available
        if available.covers(need):
            others = self._holders(quota) - {holder}
            return available.least(need.most(want.least(available // (2 * (len(others) + 1)))))
        if (available + self._elsewhere(quota, holder)).covers(need):
            quota.starved_at = at
        return NOTHING

    def _enter(
        self, quota: Quota, lease_id: str, holder: str, units: Units, expires_at: datetime, at: datetime
    ) -> Lease:
        """Make a lease. One of nothing is remembered as closed: its id never gets anything."""
        window = quota.window
        state: Literal["open", "closed"] = "closed" if units == NOTHING else "open"
        expires_at = min(expires_at, window.ends_at)
        lease = Lease(lease_id, quota.caller, window, holder, units, expires_at, at, state=state)
        self.leases[lease_id] = lease
        self._put(lease)
        return lease

    def _expire(self, lease: Lease, at: datetime) -> None:
        """Count as spent what a silent holder holds, until it or its journal says otherwise."""
        self._lift(lease)
        lease.state = "expired"
        lease.touched_at = at
        self._put(lease)

    def _book(self, lease: Lease, units: Units, at: datetime) -> Units:
        """Settle a share of a lease; return how much of it was beyond the grant."""
        over = lease.over
        self._lift(lease)
        lease.spent += units
        lease.touched_at = at
        self._put(lease)
        lease.window.settled += units
        return lease.over - over

    def _shrink(self, lease: Lease, release: Release, at: datetime) -> None:
        if lease.state == "closed":
            return
        self._lift(lease)
        lease.granted = lease.granted.least(lease.spent + (NOTHING if release.ended else release.keep))
        lease.state = "closed" if release.ended else lease.state
        lease.touched_at = at
        self._put(lease)

    def _lift(self, lease: Lease) -> None:
        """Take a lease out of the sums of its window, to be changed; `_put` puts it where it then belongs."""
        if lease.state == "open":
            lease.window.held -= lease.rest
            del self.quotas[lease.caller].open[lease.id]
        elif lease.state == "expired":
            lease.window.burned -= lease.rest

    def _put(self, lease: Lease) -> None:
        if lease.state == "open":
            lease.window.held += lease.rest
            self.quotas[lease.caller].open[lease.id] = lease
        elif lease.state == "expired":
            lease.window.burned += lease.rest

    # ------------------------------------------------------------------------------------------------------ answers

    def _balance(self, quota: Quota, holder: str, at: datetime) -> Balance:
        window = quota.window
        return Balance(
            window=window.number,
            window_left=window.ends_at - at,
            limit=window.limit,
            settled=window.settled,
            available=window.available,
            elsewhere=self._elsewhere(quota, holder),
            holders=len(self._holders(quota)),
            starved=quota.starved_at is not None and quota.starved_at > at - STARVED_FOR,
        )

    def _holders(self, quota: Quota) -> set[str]:
        return {lease.holder for lease in quota.open.values() if lease.window is quota.window}

    def _elsewhere(self, quota: Quota, holder: str) -> Units:
        """Return what others than `holder` hold of the current window."""
        held = NOTHING
        for lease in quota.open.values():
            if lease.holder != holder and lease.window is quota.window:
                held += lease.rest
        return held


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of a day; where the clocks change at midnight, the later reading, as PostgreSQL does."""
    return max(datetime.combine(day, time(fold=fold), zone).astimezone(UTC) for fold in (0, 1))
