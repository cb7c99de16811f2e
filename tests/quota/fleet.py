"""A fleet of sidecars, simulated: what can go wrong between their leases, their journals and PostgreSQL, does.

    Sidecar -- intents, charges, releases --> Journal -- batches --> Database (traces by id, LedgerModel)
       '---------------- acquire, renew ---- Network ------------------^
                                 late, lost, twice, answer lost, database away

Discrete events in virtual time, all chance from one seed: the same seed is the same history. Sidecars share leases
between requests with the `Account` of the product. They are killed and restarted with their journal, paused for many
times the life of a lease, deleted with their journal, and every clock is wrong.

What must hold is compared with `Truth`, which knows what every request really used, from the moment it is sent:
    spending of a window never passes its limit                                 (never overspent)
    settled + held + burned covers the spending at any moment                   (never forgotten)
    in the end settled is exactly what was charged, nothing is held, and only what died with a journal is burned
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tests.quota.fleet_sidecar import BATCH, TTL_S, Entry, Request, Sidecar
from tests.quota.ledger_model import NOTHING, Caller, LedgerModel, Units

T = TypeVar("T")

START = datetime(2040, 3, 9, 23, 55, tzinfo=UTC)
"""The window ends in the middle of what follows."""
HORIZON_S = 600.0
"""From then on nothing new begins and nothing fails."""
LIMIT = Units(600_000, 6_000_000_000)
CALLERS = [Caller(user, project) for project in ("p", "q") for user in ("a", "b")]
REQUESTS = 3000
"""Of all sidecars together; about twice what the limits of two windows bear."""


class Violation(AssertionError):
    """Something that must never happen did."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad it is."""

    lost: float = 0.0
    """Part of the calls whose answer never arrives; of half as many more, the call arrives late or never."""
    twice: float = 0.0
    """Part of the calls that are executed a second time, much later."""
    kills: float = 0.0
    pauses: float = 0.0
    deletions: float = 0.0
    """Per sidecar."""
    outages: int = 0
    """Times that the database is unavailable for up to a minute."""
    wobble_s: float = 0.0
    """The clock of the database is wrong by up to this, another way each time it is asked."""


class Database:
    """PostgreSQL: the ledger, and the ids of the charges that it has stored."""

    def __init__(self, ledger: LedgerModel) -> None:
        self.ledger = ledger
        self.stored: set[str] = set()
        self.over = NOTHING

    def store(self, batch: Sequence[Entry], at: datetime) -> None:
        """Apply a batch of a journal in one transaction: first the charges that are new, then the releases."""
        charges = [entry.charge for entry in batch if entry.charge is not None and self.is_new(entry)]
        self.stored.update(entry.id for entry in batch if entry.charge is not None)
        self.over += self.ledger.settle(charges, at).over
        self.ledger.release([entry.release for entry in batch if entry.release is not None], at)

    def is_new(self, entry: Entry) -> bool:
        """Tell whether a charge has not been stored before."""
        return entry.id not in self.stored


@dataclass(slots=True)
class Sent:
    """What is true of a request that was sent: the part of each window in what was reserved and used."""

    most: dict[int, Units]
    used: dict[int, Units]
    caller: Caller
    is_interrupted: bool = False


class Truth:
    """What really happened, told by nobody who could forget it."""

    def __init__(self, limit: Units) -> None:
        self.limit = limit
        self.sent: dict[str, Sent] = {}
        self.spent: dict[tuple[Caller, int], Units] = {}

    def send(self, request: Request) -> None:
        """Note that the provider has a request; from now on its use is a fact."""
        sent = self.sent[request.id] = Sent({}, {}, request.caller)
        left = request.used
        for part in request.parts:
            most = Units(part.tokens, part.nanos)
            used = left.least(most)
            left -= used
            window = part.lease.window
            sent.most[window] = sent.most.get(window, NOTHING) + most
            sent.used[window] = sent.used.get(window, NOTHING) + used
        for window, used in sent.used.items():
            key = request.caller, window
            self.spent[key] = self.spent.get(key, NOTHING) + used
            if not self.limit.covers(self.spent[key]):
                raise Violation(f"overspent: {key} spent {self.spent[key]} of {self.limit}")

    def interrupted(self, request_id: str) -> None:
        """Note that all that was reserved is charged."""
        self.sent[request_id].is_interrupted = True

    def charged(self, stored: Iterable[str]) -> dict[tuple[Caller, int], Units]:
        """Return what the stored records must have charged to each window."""
        sums: dict[tuple[Caller, int], Units] = {}
        for request_id in stored:
            sent = self.sent[request_id]
            for window, units in (sent.most if sent.is_interrupted else sent.used).items():
                key = sent.caller, window
                sums[key] = sums.get(key, NOTHING) + units
        return sums


class Fleet:
    """The world of one history: time, network, faults, and the comparison with the truth."""

    def __init__(
        self,
        seed: int,
        size: int,
        faults: Faults,
        ledger: type[LedgerModel] = LedgerModel,
        database: type[Database] = Database,
        sidecar: type[Sidecar] = Sidecar,
    ) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.limit = LIMIT
        self.counts: Counter[str] = Counter()
        self.truth = Truth(LIMIT)
        self.database = database(ledger(LIMIT))
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._away: list[tuple[float, float]] = []
        self.sidecars = [sidecar(self, f"car{number}") for number in range(size)]
        self._plan()

    # ------------------------------------------------------------------------------------------------------ history

    def run(self) -> None:
        """Live through it. Raises Violation."""
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self._close()
        self._check_end()

    def _plan(self) -> None:
        """Decide what will happen, and when."""
        chance, faults = self.random, self.faults
        for _ in range(REQUESTS):
            sidecar = chance.choice(self.sidecars)
            self.at(chance.uniform(0, HORIZON_S), lambda sidecar=sidecar: self._arrive(sidecar))  # type: ignore[misc]
        for sidecar in self.sidecars:
            for rate, event in (
                (faults.kills, sidecar.kill),
                (faults.pauses, lambda sidecar=sidecar: self._pause(sidecar)),
                (faults.deletions, sidecar.delete),
            ):
                for _ in range(int(rate + chance.random())):
                    self.at(chance.uniform(0, HORIZON_S), event)
        for _ in range(faults.outages):
            begin = chance.uniform(0, HORIZON_S)
            self._away.append((begin, begin + chance.uniform(1, 60)))
        for number in range(1, int(HORIZON_S / 30) + 1):
            self.at(number * 30.0, self._check)
        self.at(chance.uniform(0, HORIZON_S), self._reset)

    def _arrive(self, sidecar: Sidecar) -> None:
        """A client calls; a dead sidecar refuses the connection, a paused one lets it wait."""
        chance = self.random
        tokens = int(chance.lognormvariate(8, 1))
        most = Units(tokens, tokens * chance.randint(1, 20) * 1000)
        part = chance.choice((0.0, chance.random(), 1.0))
        used = Units(int(most.tokens * part), int(most.nanos * part))
        self._number += 1
        request = Request(
            f"request{self._number}", chance.choice(CALLERS), most, used, lasts_s=min(chance.expovariate(1 / 10), 200.0)
        )
        sidecar.later(0.0, lambda: sidecar.accept(request))

    def _pause(self, sidecar: Sidecar) -> None:
        self.counts["paused"] += 1
        sidecar.paused_until = self.now + self.random.uniform(0, 6 * TTL_S)

    def _reset(self) -> None:
        """An operator starts a new window for somebody."""
        self.database.ledger.reset(self.random.choice(CALLERS), self.database_time())

    # ---------------------------------------------------------------------------------------------------- the world

    @property
    def wall(self) -> datetime:
        """What the clocks on the wall would show if they were right."""
        return START + timedelta(seconds=self.now)

    @property
    def is_ending(self) -> bool:
        """Nothing new begins any more."""
        return self.now >= HORIZON_S

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time; things of the same time in the order in which they were said."""
        self._number += 1
        heapq.heappush(self._events, (time, self._number, action))

    def call(
        self,
        sidecar: Sidecar,
        work: Callable[[LedgerModel, datetime], T],
        answered: Callable[[T], None],
        failed: Callable[[], None],
    ) -> None:
        """Carry a call to the database and its answer back, unless something happens to one of them."""
        chance, life, faults = self.random, sidecar.life, self.faults
        lost = 0.0 if self.is_ending else faults.lost
        fate = chance.random()

        def execute() -> None:
            if self.is_away:
                sidecar.later(1.0, failed, life)
                return
            answer = work(self.database.ledger, self.database_time())
            if fate < lost:
                self.counts["lost"] += 1
                sidecar.later(2.0, failed, life)
            else:
                sidecar.later(chance.uniform(0.001, 0.05), lambda: answered(answer), life)

        if lost <= fate < lost * 1.5:
            sidecar.later(2.0, failed, life)
        else:
            self.at(self.now + chance.uniform(0.001, 0.05), execute)
        if lost <= fate < lost * 1.25 or chance.random() < faults.twice:
            self.counts["late"] += 1
            self.at(self.now + chance.uniform(0, 4 * TTL_S), lambda: self._execute_late(work))

    def _execute_late(self, work: Callable[[LedgerModel, datetime], object]) -> None:
        """Execute a call that somebody has given up, or that was executed before."""
        if not self.is_away:
            work(self.database.ledger, self.database_time())

    @property
    def is_away(self) -> bool:
        """The database cannot be reached."""
        return not self.is_ending and any(begin <= self.now < end for begin, end in self._away)

    def database_time(self) -> datetime:
        """Return what the clock of the database shows."""
        return self.wall + timedelta(seconds=self.random.uniform(-1, 1) * self.faults.wobble_s)

    def store(self, batch: Sequence[Entry], at: datetime) -> None:
        """Apply a batch of a journal in one transaction."""
        self.database.store(batch, at)

    def sent(self, request: Request) -> None:
        """Note that the provider has a request."""
        self.truth.send(request)

    def interrupted(self, request_id: str) -> None:
        """Note that a request was found without a charge."""
        self.truth.interrupted(request_id)

    # ------------------------------------------------------------------------------------------------------- checks

    def _close(self) -> None:
        """End an ordinary life of all that are left, carry their journals, and let the leases of the others expire."""
        for sidecar in self.sidecars:
            if not sidecar.is_deleted:
                sidecar.close()
                while batch := sidecar.journal.entries[sidecar.journal.done :][:BATCH]:
                    self.database.store(batch, self.wall)
                    sidecar.journal.done += len(batch)
        self.now += 2 * TTL_S
        for caller in CALLERS:
            zero = timedelta()
            self.database.ledger.acquire(caller, f"last-{caller}", "nobody", NOTHING, NOTHING, zero, self.wall)

    def _check(self) -> None:
        """Compare sums within the ledger, and with the truth: what was spent is never available to others."""
        self._complain(self.database.ledger.faults())
        self._complain(self._forgotten())

    def _forgotten(self) -> Iterator[str]:
        for (caller, number), spent in self.truth.spent.items():
            window = self.database.ledger.quotas[caller].windows[number - 1]
            if not (window.settled + window.held + window.burned).covers(spent):
                yield f"forgotten: {caller} spent {spent}, the ledger has {window}"

    def _check_end(self) -> None:
        self._check()
        self._complain(self._wrong())
        self._complain(self._leaks())
        for caller, quota in self.database.ledger.quotas.items():
            self.database.ledger.reconcile(timedelta(), self.wall + timedelta(seconds=1))
            if quota.window.held != NOTHING or quota.window.burned != NOTHING:
                raise Violation(f"not reconciled: {caller} {quota.window}")

    def _wrong(self) -> Iterator[str]:
        """Yield windows in which something else is settled than was charged."""
        if self.database.over != NOTHING:
            yield f"beyond the grants: {self.database.over}"
        charged = self.truth.charged(self.database.stored)
        for caller, quota in self.database.ledger.quotas.items():
            for window in quota.windows:
                expected = charged.get((caller, window.number), NOTHING)
                if window.settled != expected:
                    yield f"wrong: {caller} charged {expected}, settled {window}"

    def _leaks(self) -> Iterator[str]:
        """Yield leases that hold something though their journal is there."""
        deleted = {sidecar.name for sidecar in self.sidecars if sidecar.is_deleted}
        for lease in self.database.ledger.leases.values():
            if lease.rest != NOTHING and (lease.state == "open" or lease.holder.partition(".")[0] not in deleted):
                yield f"leak: {lease.holder} {lease.state} {lease.rest} of lease {lease.id}"

    def _complain(self, faults: Iterable[str]) -> None:
        for fault in faults:
            raise Violation(f"after {self.now:.0f} s: {fault}")
