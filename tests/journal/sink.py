"""A database in memory with what matters of the real one: transactions, uniqueness, refusals, absence."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from proxy.errors import DatabaseUnavailable, RecordRejected
from proxy.journal.frames import Record

Row = tuple[int, bytes]


class Sink:
    """`before_commit` and `after_commit` are called in every transaction and may raise."""

    def __init__(self) -> None:
        self.rows: dict[Row, Record] = {}
        self.dead: dict[Row, str] = {}
        self.is_up = True
        self.transactions = 0
        self.applied: list[int] = []
        """Size of every batch that was tried."""
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
        if any(map(self.poison, records)):
            raise RecordRejected("22P05")
        new = [record for record in records if (record.kind, record.trace_id) not in self.rows]
        self.rows.update({(record.kind, record.trace_id): record for record in new})
        return new

    async def dead_letter(self, connection: "Sink", record: Record, reason: str) -> None:
        if self.refuses_dead_letters:
            raise RecordRejected("22P05")
        self.dead[record.kind, record.trace_id] = reason
