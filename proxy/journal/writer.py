"""Stores the journal in PostgreSQL: batch by batch, each in one transaction, in order.

    journal.read_batch --> transaction: applier 1 -> applier 2 -> .. --> journal.commit
            ^                        |
            |    unavailable: the same batch again, after a pause, for as long as it takes
            |    rejected:    in halves, down to the single record at fault: dead letter

Rules of the file: a record leaves the journal only after a transaction that contains it (or its dead letter) was
committed. So everything may happen twice: the answer to COMMIT may be lost, or the process crash before
`journal.commit`. Appliers must recognise what they already have; dead letters must be idempotent per trace id and kind.

Failure mode: an error that is neither an unavailable database nor rejected data is a bug or a mismatched schema. It is
handled like an unavailable database, so nothing is lost until it is fixed; it is counted and logged by type only.
"""

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from proxy.config import schema
from proxy.errors import DatabaseUnavailable, RecordRejected
from proxy.journal.frames import Record
from proxy.journal.reader import Batch
from proxy.journal.segments import Journal

_log = logging.getLogger("sidegate.journal")
_TEND_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.1
_FRESH_BYTES = 4_194_304
"""This little, written this recently, is still in memory: reading it needs no thread."""
_ANY = (1, sys.maxsize)

Transaction = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a transaction: leaving the block commits, an exception rolls back. Raises what `Applier.apply` raises."""
DeadLetter = Callable[[Any, Record, str], Awaitable[None]]
"""Stores one refused record and the reason, in the transaction of the given connection."""


class Applier(Protocol):
    """Stores records. Called in the configured order, each with what the previous one found new."""

    async def apply(self, connection: Any, records: Sequence[Record], /) -> Sequence[Record]:
        """Store `records` (finals and contents) and return those that were not stored before.

        Raises:
            DatabaseUnavailable: try the same records again later.
            RecordRejected: at least one of them can never be stored.
        """


@dataclass(frozen=True, slots=True)
class WriterStats:
    """Totals since the start."""

    batches: int = 0
    """Transactions that were committed."""
    records: int = 0
    """Records that they contained."""
    replayed: int = 0
    """Of these, records that the first applier already had."""
    unavailable: int = 0
    """Attempts that found no working database."""
    unexpected: int = 0
    """Attempts that failed for an unforeseen reason."""
    dead_letters: int = 0
    lost: int = 0
    """Records that could not even be stored as dead letters."""
    is_available: bool = True
    """The latest attempt reached the database."""


class Writer:
    """The only reader of a journal."""

    def __init__(
        self,
        journal: Journal,
        *,
        transaction: Transaction,
        appliers: Sequence[Applier],
        dead_letter: DeadLetter,
        settings: schema.Journal,
    ) -> None:
        self._journal = journal
        self._transaction = transaction
        self._appliers = appliers
        self._dead_letter = dead_letter
        self._settings = settings
        self._full = (settings.batch_records, settings.batch_bytes)
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()
        self._awaited: tuple[int, int] | None = None
        """Number of records, and of bytes, that the loop waits for; `None`: it does not wait."""
        self._flushing = 0
        self._is_urgent = False
        self._stats = WriterStats()

    def notify(self) -> None:
        """Handle an append; call after every one. Wakes the loop only if that matters."""
        if self._awaited is not None and self._journal.has_waiting(*self._awaited):
            self._wake.set()

    def hurry(self) -> None:
        """Store what was appended without waiting for more, because somebody waits for it."""
        self._is_urgent = True
        self._wake.set()

    async def run(self) -> None:
        """Store records until cancelled. A cancelled batch is not committed and is read again."""
        while True:
            await self._gather()
            batch = await self._read()
            await self._land(batch.records)
            self._journal.commit(batch)
            self._announce()
            # A batch that only passes intents or damage gets here without any wait.
            await asyncio.sleep(0)

    async def flush(self, timeout_s: float) -> bool:
        """Store at once what has been appended so far; tell whether that was done in time. Needs `run`."""
        try:
            async with asyncio.timeout(timeout_s):
                with self._in_haste():
                    while self._journal.held:
                        await self._next_advance()
                    target = self._journal.end
                    while self._journal.held or (self._journal.depth and self._journal.cursor < target):
                        await self._next_advance()
        except TimeoutError:
            return False
        return True

    def stats(self) -> WriterStats:
        """Return the totals."""
        return self._stats

    @contextmanager
    def _in_haste(self) -> Iterator[None]:
        self._flushing += 1
        self._wake.set()
        try:
            yield
        finally:
            self._flushing -= 1

    async def _next_advance(self) -> None:
        self._advanced.clear()
        await self._advanced.wait()

    def _announce(self) -> None:
        self._advanced.set()

    async def _gather(self) -> None:
        """Wait for a batch worth a transaction: enough records or bytes, or the first has waited long enough."""
        while not self._journal.depth:
            await self._wait_for(_ANY, _TEND_EVERY_S)
            self._journal.tend()
            self._announce()
        if not self._flushing and not self._is_urgent:
            await self._wait_for(self._full, self._settings.batch_delay_ms / 1000)
        self._is_urgent = False

    async def _wait_for(self, waiting: tuple[int, int], timeout_s: float) -> None:
        """Wait until so many records or bytes wait, the time is up, or somebody is in a hurry."""
        if self._journal.has_waiting(*waiting):
            return
        self._wake.clear()
        self._awaited = waiting
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._awaited = None

    async def _read(self) -> Batch:
        pauses = self._pauses()
        while True:
            try:
                if self._journal.unread_bytes <= _FRESH_BYTES:
                    return self._journal.read_batch(*self._full)
                # On a thread: the file may not be in memory, and a record may have 64 MiB.
                return await asyncio.to_thread(self._journal.read_batch, *self._full)
            except OSError as error:
                self._note_unexpected(error)
            await self._pause(next(pauses))

    async def _land(self, records: Sequence[Record]) -> None:
        """Return once every record is stored, as itself or as a dead letter."""
        if not records:
            return
        try:
            await self._until_available(lambda: self._apply(records))
        except RecordRejected as rejection:
            if len(records) == 1:
                await self._bury(records[0], str(rejection))
                return
            middle = len(records) // 2
            await self._land(records[:middle])
            await self._land(records[middle:])

    async def _apply(self, records: Sequence[Record]) -> None:
        replayed = 0
        async with self._transaction() as connection:
            new = records
            for index, applier in enumerate(self._appliers):
                new = await applier.apply(connection, new)
                if index == 0:
                    replayed = len(records) - len(new)
        self._count(batches=1, records=len(records), replayed=replayed)

    async def _bury(self, record: Record, reason: str) -> None:
        async def store() -> None:
            async with self._transaction() as connection:
                await self._dead_letter(connection, record, reason)

        identity = {"trace_id": record.trace_id.hex(), "kind": record.kind.name.lower()}
        try:
            await self._until_available(store)
        except RecordRejected:
            self._count(lost=1)
            _log.error("a record cannot be stored in any form", extra=identity)
        else:
            self._count(dead_letters=1)
            _log.warning("a record was rejected and moved to the dead letters", extra=identity)

    async def _until_available(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` until the database has given an answer.

        Raises:
            RecordRejected: the database rejected a record.
        """
        pauses = self._pauses()
        while True:
            try:
                await action()
                self._set_available(True)
                return
            except RecordRejected:
                self._set_available(True)
                raise
            except DatabaseUnavailable:
                self._count(unavailable=1)
            except Exception as error:
                self._note_unexpected(error)
            self._set_available(False)
            await self._pause(next(pauses))

    def _pauses(self) -> Iterator[float]:
        """Yield pauses that double up to the limit, with random jitter, so that many proxies do not return at once."""
        pause_s = _FIRST_PAUSE_S
        while True:
            pause_s = min(pause_s, self._settings.retry_max_s)
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s *= 2

    async def _pause(self, seconds: float) -> None:
        # The journal needs maintenance while the database is unavailable, too.
        self._journal.tend()
        self._announce()
        await asyncio.sleep(seconds)

    def _note_unexpected(self, error: Exception) -> None:
        self._count(unexpected=1)
        _log.error("storing records failed; retrying", extra={"error": type(error).__name__})

    def _set_available(self, value: bool) -> None:
        if value is not self._stats.is_available:
            self._stats = replace(self._stats, is_available=value)
            if value:
                _log.info("records are stored again")
            else:
                _log.warning("records cannot be stored and wait in the journal")

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + by for name, by in more.items()})
