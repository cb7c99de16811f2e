"""A database in memory with what matters of the real one: transactions, uniqueness, refusals, absence."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.errors import ConstraintViolated, DatabaseUnavailable, RecordRejected
from proxy.journal.frames import FINAL, Record
from proxy.journal.segments import Journal
from proxy.journal.transactions import Applier
from proxy.journal.writer import Writer
from tests.journal.disk import make_settings

Row = tuple[int, bytes]


class Sink:
    """`before_commit` and `after_commit` are called in every transaction and may raise."""

    sifts = True
    """Which records are refused can be told all at once."""

    def __init__(self) -> None:
        self.rows: dict[Row, Record] = {}
        self.dead: dict[Row, str] = {}
        self.charged: dict[Row, bool] = {}
        self.is_up = True
        self.transactions = 0
        self.applied: list[int] = []
        """Size of every batch that was tried."""
        self.sifted: list[int] = []
        """Of every one that was looked through for refused records."""
        self.trouble: Callable[[Sequence[Record]], Exception | None] = lambda records: None
        """Raised instead of storing these."""
        self.poison: Callable[[Record], bool] = lambda record: record.body.startswith(b"poison")
        self.refuses_dead_letters = False
        self.before_commit: Callable[[], None] = lambda: None
        self.after_commit: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Sink"]:
        if not self.is_up:
            raise DatabaseUnavailable("away")
        self.transactions += 1
        rows, dead = dict(self.rows), dict(self.dead)
        try:
            yield self
            self.before_commit()
        except BaseException:
            self.rows, self.dead = rows, dead
            raise
        self.after_commit()

    async def apply(self, connection: "Sink", records: Sequence[Record]) -> Sequence[Record]:
        assert connection is self
        self.applied.append(len(records))
        if error := self.trouble(records):
            raise error
        if any(map(self.poison, records)):
            raise RecordRejected("22P05")
        new = [record for record in records if (record.kind, record.trace_id) not in self.rows]
        self.rows.update({(record.kind, record.trace_id): record for record in new})
        return new

    async def refused(self, records: Sequence[Record]) -> Mapping[bytes, str]:
        if not self.sifts:
            raise DatabaseUnavailable("away")
        self.sifted.append(len(records))
        found = {}
        for record in records:
            error = self.trouble([record]) if record.kind is FINAL else None
            if error and not isinstance(error, DatabaseUnavailable | RecordRejected):
                found[record.trace_id] = f"SQLSTATE P0001 {type(error).__name__}"
            if isinstance(error, ConstraintViolated):
                found[record.trace_id] = str(error)
        return found

    async def dead_letter(self, connection: "Sink", record: Record, reason: str, *, is_charged: bool) -> bool:
        if self.refuses_dead_letters:
            raise RecordRejected("22P05")
        is_new = (record.kind, record.trace_id) not in self.dead
        self.dead[record.kind, record.trace_id] = reason
        self.charged[record.kind, record.trace_id] = is_charged
        return is_new


@asynccontextmanager
async def running(journal: Journal, sink: Sink, *more: Applier, **changes: Any) -> AsyncIterator[Writer]:
    settings = make_settings(**{"retry_max_s": 0.01, "batch_delay_ms": 20, **changes})
    writer = Writer(
        journal,
        transaction=sink.transaction,
        appliers=(sink, *more),
        sift=sink.refused,
        dead_letter=sink.dead_letter,
        settings=settings,
    )
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
