"""A sidecar of the simulated fleet: a small replica around the product's `Account`, its journal, and its deaths.

    accept --> admit: reserve, journal the intent, send --> finish: charge, journal
       '-----> ask: journal the lease's id, acquire, the same id until an answer comes --> admit whoever waits

Rule of the file: what the journal has is kept, in order; everything else is gone with a kill. What it asks of the world
is in `World`. The methods are small so that a mutant can replace one of them.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from proxy.quota.lease import Account, Lease, Part, shrink
from tests.quota.ledger_model import NOTHING, Balance, Caller, Charge, Grant, LedgerModel, Release, Units

T = TypeVar("T")

TTL_S = 30.0
RENEW_S = 10.0
IDLE_S = 15.0
RETRY_S = 1.0
TRIES = 6
BATCH = 40
LEASE_PART = 20
"""A lease is this part of the limit while plenty is left."""
_TTL = timedelta(seconds=TTL_S)


@dataclass(slots=True)
class Entry:
    """A record of a journal: the intent of a request or of a lease, a charge, or a release."""

    id: str
    caller: Caller
    intent: tuple[tuple[str, Units], ...] | None = None
    """Reserved of each lease; empty for the intent of a lease."""
    charge: Charge | None = None
    release: Release | None = None


@dataclass(slots=True)
class Journal:
    """What a sidecar has written, in order; survives it. `done`: entries that the database has acknowledged."""

    entries: list[Entry] = field(default_factory=list)
    done: int = 0

    def left_open(self) -> tuple[list[Entry], list[Entry]]:
        """Return the intents of requests without a charge, and of leases without an end."""
        closed = {entry.id for entry in self.entries if entry.charge or (entry.release and entry.release.ended)}
        intents = [entry for entry in self.entries if entry.intent is not None and entry.id not in closed]
        return [entry for entry in intents if entry.intent], [entry for entry in intents if not entry.intent]


@dataclass(slots=True)
class Request:
    """One request: reserved are `most`, used are in truth `used`."""

    id: str
    caller: Caller
    most: Units
    used: Units
    lasts_s: float
    parts: list[Part] = field(default_factory=list)


@dataclass(slots=True)
class Asking:
    """A caller of one sidecar, who waits for a lease."""

    lease_id: str = ""
    waiting: list[Request] = field(default_factory=list)
    tries: int = 0


class World(Protocol):
    """What surrounds a sidecar."""

    random: random.Random
    counts: Counter[str]
    limit: Units

    @property
    def now(self) -> float:
        """True seconds since the start."""

    @property
    def wall(self) -> datetime:
        """What a sidecar's clock on the wall shows."""

    @property
    def is_ending(self) -> bool:
        """Nothing new begins any more."""

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time."""

    def call(
        self,
        sidecar: "Sidecar",
        work: Callable[[LedgerModel, datetime], T],
        answered: Callable[[T], None],
        failed: Callable[[], None],
    ) -> None:
        """Ask the database for `work`; exactly one of the others follows, if the sidecar lives to see it."""

    def store(self, batch: Sequence["Entry"], at: datetime) -> None:
        """Apply a batch of a journal in one transaction."""

    def sent(self, request: "Request") -> None:
        """Note that the provider has a request: from now on its use is a fact."""

    def interrupted(self, request_id: str) -> None:
        """Note that a request was found without a charge, so that all it reserved is charged."""


class Sidecar:
    """One replica. Its journal and its name outlive it; everything else is gone when it is killed."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.journal = Journal()
        self.life = 0
        self.is_alive = True
        self.is_deleted = False
        self.ids = 0
        self.drift = world.random.uniform(0.9, 1.1)
        self.begin()

    def begin(self) -> None:
        """Start with an empty memory."""
        self.accounts: dict[Caller, Account] = {}
        self.asking: dict[Caller, Asking] = {}
        self.used_at: dict[Caller, float] = {}
        self.scarce: set[Caller] = set()
        self.paused_until = 0.0
        self.is_writing = False
        self.later(self.world.random.uniform(0, RENEW_S), self.renew)

    @property
    def holder(self) -> str:
        """Another one after each start."""
        return f"{self.name}.{self.life}"

    @property
    def clock(self) -> float:
        """Monotonic seconds, which pass too fast or too slowly."""
        return 1000.0 + self.world.now * self.drift

    def new_id(self) -> str:
        """Return an id that nobody else has."""
        self.ids += 1
        return f"{self.name}-{self.ids}"

    def later(self, delay_s: float, action: Callable[[], None], life: int | None = None) -> None:
        """Do something later, if this process still lives then; if it is paused then, when it goes on."""
        of = self.life if life is None else life
        self.world.at(self.world.now + delay_s, lambda: self._act(of, action))

    def _act(self, life: int, action: Callable[[], None]) -> None:
        if life != self.life or not self.is_alive:
            return
        if self.paused_until > self.world.now:
            self.later(self.paused_until - self.world.now, action)
        else:
            action()

    # --------------------------------------------------------------------------------------------------- requests

    def accept(self, request: Request) -> None:
        """Admit a request if leases bear it, else ask for one and let it wait."""
        self.used_at[request.caller] = self.clock
        asking = self.asking.setdefault(request.caller, Asking())
        if asking.waiting or not self.admit(request):
            asking.waiting.append(request)
            self.ask(request.caller)

    def admit(self, request: Request) -> bool:
        """Reserve the most that it may use, journal that, and send it."""
        parts = self.account(request.caller).take(request.most.tokens, request.most.nanos, self.clock)
        if parts is None:
            return False
        request.parts = parts
        self.write_intent(request)
        self.world.sent(request)
        self.world.counts["admitted"] += 1
        self.later(request.lasts_s, lambda: self.finish(request))
        return True

    def finish(self, request: Request) -> None:
        """Charge what was used; the rest is there for others."""
        shares = self.account(request.caller).give(request.parts, request.used.tokens, request.used.nanos)
        charged = tuple((share.lease_id, Units(share.tokens, share.cost_nanos)) for share in shares)
        self.write_charge(request.id, request.caller, charged)

    def account(self, caller: Caller) -> Account:
        """What this replica holds for a caller."""
        return self.accounts.setdefault(caller, Account(*caller))

    # ----------------------------------------------------------------------------------------------------- leases

    def ask(self, caller: Caller) -> None:
        """Ask for a lease that bears those who wait; one at a time."""
        asking = self.asking[caller]
        if not asking.lease_id:
            asking.lease_id, asking.tries = self.new_id(), 0
            self.write_lease_intent(asking.lease_id, caller)
            self.ask_again(caller)

    def ask_again(self, caller: Caller) -> None:
        """Send the wish, the first time or after a failure."""
        asking, asked_at = self.asking[caller], self.clock
        asking.tries += 1
        lease_id, holder, need = asking.lease_id, self.holder, asking.waiting[0].most
        want = need if caller in self.scarce else self.world.limit // LEASE_PART
        self.world.call(
            self,
            lambda ledger, at: ledger.acquire(caller, lease_id, holder, need, want, _TTL, at),
            lambda grant: self.granted(caller, lease_id, asked_at, grant),
            lambda: self.unanswered(caller),
        )

    def granted(self, caller: Caller, lease_id: str, asked_at: float, grant: Grant) -> None:
        """Use what was granted; if it was nothing, refuse the first who waits."""
        asking = self.asking[caller]
        asking.lease_id = ""
        if grant.units == NOTHING:
            self.write_release(Release(lease_id, caller, ended=True))
            if not self.admit(asking.waiting[0]):
                self.world.counts["refused"] += 1
            del asking.waiting[0]
        else:
            until = asked_at + grant.balance.window_left.total_seconds()
            lease = Lease(lease_id, grant.balance.window, until, grant.units.tokens, grant.units.nanos)
            self.account(caller).leases.append(lease)
        while asking.waiting and self.admit(asking.waiting[0]):
            del asking.waiting[0]
        if asking.waiting:
            self.ask(caller)

    def unanswered(self, caller: Caller) -> None:
        """Ask again with the same id, for some time; then give up, and give back what may have been granted."""
        asking = self.asking[caller]
        if asking.tries < TRIES:
            self.later(RETRY_S, lambda: self.ask_again(caller))
            return
        self.write_release(Release(asking.lease_id, caller, ended=True))
        self.world.counts["refused"] += len(asking.waiting)
        self.asking[caller] = Asking()

    def renew(self) -> None:
        """Keep leases alive, give back what is not needed."""
        ids = [lease.id for account in self.accounts.values() for lease in account.leases]
        self.world.call(self, lambda ledger, at: ledger.renew(ids, _TTL, at), self.renewed, lambda: None)
        self.tidy()
        if not self.world.is_ending:
            self.later(RENEW_S * self.world.random.uniform(0.8, 1.2), self.renew)

    def renewed(self, balances: dict[Caller, Balance]) -> None:
        """Take over how callers stand."""
        for caller, balance in balances.items():
            is_scarce = balance.starved or not balance.available.covers(balance.limit // LEASE_PART)
            (self.scarce.add if is_scarce else self.scarce.discard)(caller)

    def tidy(self) -> None:
        """Give back what is idle, or wanted by others, or of a window that is over."""
        for caller, account in self.accounts.items():
            is_idle = self.clock - self.used_at[caller] > IDLE_S
            for lease in tuple(account.leases):
                if not (is_idle or caller in self.scarce or self.clock >= lease.usable_until):
                    continue
                if lease.requests == 0:
                    account.drop(lease)
                    self.write_release(Release(lease.id, caller, ended=True))
                elif lease.spare_tokens or lease.spare_nanos:
                    self.write_release(Release(lease.id, caller, Units(*shrink(lease))))

    # ---------------------------------------------------------------------------------------------------- journal

    def write_intent(self, request: Request) -> None:
        """Before a request is sent."""
        shares = tuple((part.lease.id, Units(part.tokens, part.nanos)) for part in request.parts)
        self.write(Entry(request.id, request.caller, intent=shares))

    def write_lease_intent(self, lease_id: str, caller: Caller) -> None:
        """Before a lease is asked for."""
        self.write(Entry(lease_id, caller, intent=()))

    def write_charge(self, request_id: str, caller: Caller, shares: tuple[tuple[str, Units], ...]) -> None:
        """Before the last byte of an answer leaves."""
        self.write(Entry(request_id, caller, charge=Charge(caller, self.world.wall, shares)))

    def write_release(self, release: Release) -> None:
        """Whenever something is given back."""
        self.write(Entry(release.lease_id, release.caller, release=release))

    def write(self, entry: Entry) -> None:
        """Append to the journal; it is carried to the database in the background."""
        self.journal.entries.append(entry)
        self.carry()

    def carry(self) -> None:
        """Send the next batch, one at a time, after a moment in which it grows."""
        if not self.is_writing and self.journal.done < len(self.journal.entries):
            self.is_writing = True
            self.later(self.world.random.uniform(0.1, 2.0), self.send_batch)

    def send_batch(self) -> None:
        """Send a batch; again if no answer comes, whether or not it was stored."""
        batch = self.journal.entries[self.journal.done : self.journal.done + BATCH]
        self.world.call(
            self,
            lambda _, at: self.world.store(batch, at),
            lambda _: self.carried(self.journal.done + len(batch)),
            lambda: self.later(RETRY_S, self.send_batch),
        )

    def carried(self, done: int) -> None:
        """Go on behind an acknowledged batch."""
        self.journal.done = done
        self.is_writing = False
        self.carry()

    # ----------------------------------------------------------------------------------------------- life and end

    def kill(self) -> None:
        """Die without a word, and come back some time later."""
        self.is_alive = False
        self.life += 1
        self.world.counts["killed"] += 1
        delay_s = self.world.random.choice((0.1, 5.0, 2 * TTL_S))
        self.world.at(self.world.now + delay_s, self.restart)

    def restart(self) -> None:
        """Start with what the journal has. What was acknowledged lately may be read and sent again."""
        if self.is_deleted or self.is_alive:
            return
        self.is_alive = True
        self.life += 1
        self.journal.done = max(0, self.journal.done - self.world.random.randrange(BATCH))
        self.begin()
        self.recover(*self.journal.left_open())

    def recover(self, requests: list[Entry], leases: list[Entry]) -> None:
        """Charge the requests that were interrupted, then end the leases that were left behind."""
        for entry in requests:
            self.world.interrupted(entry.id)
            self.write_charge(entry.id, entry.caller, entry.intent or ())
        for entry in leases:
            self.write_release(Release(entry.id, entry.caller, ended=True))

    def delete(self) -> None:
        """Die for ever, with the journal."""
        self.world.counts["deleted"] += 1
        self.is_alive, self.is_deleted = False, True

    def close(self) -> None:
        """Give everything back, at the end of an ordinary life."""
        for caller, account in self.accounts.items():
            for lease in account.leases:
                self.journal.entries.append(Entry(lease.id, caller, release=Release(lease.id, caller, ended=True)))
