"""One replica's quotas on a real ledger and a real journal, put together as `app` does, without a server around."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from proxy.config import schema
from proxy.config.quota import Quota
from proxy.db.pool import Database
from proxy.exchange import Attempt, Candidate, Charge, Exchange, Inbound, Principal, Usage
from proxy.journal.segments import Journal
from proxy.journal.writer import Writer
from proxy.nouns.holds import Bound, Hold
from proxy.openai.operations import match
from proxy.quota.callers import Callers
from proxy.quota.keeper import Keeper
from proxy.quota.lease_book import LeaseBook
from proxy.quota.ledger import Ledger
from proxy.quota.outage import Outage
from proxy.quota.reservation import Reservation
from proxy.quota.reservations import Reservations
from proxy.quota.supply import Supply
from proxy.quota.tally import QuotaTally
from proxy.tasks import Background
from proxy.trace import record
from proxy.trace.store import TraceStore

ALICE = Principal("alice", "default-project", "header")


def bound(tokens: int = 100, nanos: int = 0, *, modest: int | None = None, can_grow: bool = False) -> Bound:
    """A request of 10 input tokens; `nanos`: what a million output tokens cost."""
    output = tokens - 10
    return Bound(
        input_tokens=10,
        input_nanos=0,
        output_tokens=output,
        output_nanos_per_million=nanos,
        modest_output_tokens=output if modest is None else modest,
        is_capped=True,
        can_be_capped=True,
        can_grow=can_grow,
    )


class Replica:
    """The parts of `app.App` that quotas need."""

    def __init__(
        self, url: str, directory: Path, name: str, rules: Callable[[str], str | None] | None = None, **settings: object
    ) -> None:
        self.url = url
        self.settings = Quota.model_validate(settings)
        self.database = Database(schema.Database(acquire_timeout_s=1.0))
        self.journal = Journal(directory / name, schema.Journal(batch_delay_ms=10))
        self.store = TraceStore(self.database, schema.Database())
        self.ledger = Ledger(self.database, self.settings, name)
        self.writer = Writer(
            self.journal,
            transaction=partial(self.database.transaction, patient=True),
            appliers=(self.store, self.ledger),
            sift=self.store.refused,
            dead_letter=self.store.dead_letter,
            settings=schema.Journal(batch_delay_ms=10),
        )
        self.tally, self.callers = QuotaTally(), Callers(self.settings, rules)
        self.outage = Outage(self.settings, self.tally, time.monotonic)
        book = LeaseBook(self.journal, self.writer.hurry)
        shared = {"ledger": self.ledger, "book": book, "outage": self.outage, "tally": self.tally}
        self.keeper = Keeper(self.settings, callers=self.callers, clock=time.monotonic, **shared)
        self.supply = Supply(self.settings, heard=self.keeper.heard, clock=time.monotonic, **shared)
        self.quotas = Reservations(
            self.settings,
            callers=self.callers,
            supply=self.supply,
            outage=self.outage,
            tally=self.tally,
            clock=time.monotonic,
        )
        self._background = Background()

    async def start(self, *, keep: bool = True, opened: bool = False) -> None:
        if not opened:
            self.journal.open()
        await self.database.connect(self.url)
        self._background.start("writer", self.writer.run)
        if keep:
            self._background.start("keeper", self.keeper.run)

    async def stop(self) -> None:
        self.keeper.give_all_back()
        await self.writer.flush(5)
        await self._background.stop()
        self.journal.close()
        await self.database.close()

    async def stop_without_database(self) -> None:
        await self._background.stop()
        self.journal.close()
        await self.database.close()

    async def die(self) -> None:
        """End as a process does that is killed: what is in memory is gone, the journal stays."""
        await self.stop_without_database()

    async def reserve_now_or_ask(self) -> Reservation:
        """Reserve 100 tokens."""
        self.outage.note_answer()
        return await self.reserve(bound(100))

    async def reserve(self, wanted: Bound, who: Principal = ALICE):
        return self.quotas.reserve_now(who, wanted) or await self.quotas.reserve(who, wanted)


@asynccontextmanager
async def replicas(url: str, directory: Path, count: int = 1, **settings: object) -> AsyncIterator[list[Replica]]:
    """Run so many replicas on one database."""
    running = [Replica(url, directory, f"replica-{i}", **settings) for i in range(count)]
    for one in running:
        await one.start()
    try:
        yield running
    finally:
        for one in running:
            await one.stop()


def without_limits(settings: Quota) -> Reservations:
    """Return quotas that are switched off: no ledger is ever asked."""
    tally, callers = QuotaTally(), Callers(settings)
    outage = Outage(settings, tally, time.monotonic)
    ledger = Ledger(Database(schema.Database()), settings, "nobody")
    journal = Journal(Path("never-opened"), schema.Journal())
    book = LeaseBook(journal, lambda: None)
    keeper = Keeper(
        settings, ledger=ledger, book=book, callers=callers, outage=outage, tally=tally, clock=time.monotonic
    )
    supply = Supply(
        settings, ledger=ledger, book=book, outage=outage, tally=tally, heard=keeper.heard, clock=time.monotonic
    )
    return Reservations(settings, callers=callers, supply=supply, outage=outage, tally=tally, clock=time.monotonic)


def charge(one: Replica, hold: Hold, tokens: int, nanos: int = 0, who: Principal = ALICE) -> None:
    """Journal the final record of a request that was charged so."""
    now_ms = int(time.time() * 1000)
    trace_id = record.trace_id(now_ms)
    inbound = Inbound(
        method="POST",
        target="/v1/chat/completions",
        path="/v1/chat/completions",
        headers=(),
        fields={},
        operation=match("POST", "/v1/chat/completions", False),
        peer=None,
        content_length=None,
        has_body=True,
    )
    x = Exchange(trace_id, now_ms, time.monotonic(), inbound, principal=who, outcome="ok", hold=hold)
    x.attempts.append(Attempt(0, Candidate("default", "m"), x.started, sent=True, status=200))
    x.charges = (Charge(Usage(output_tokens=tokens), "provider", nanos, priced=True),)
    one.journal.append_final(bytes.fromhex(trace_id.replace("-", "")), record.final(x))
    one.writer.notify()
