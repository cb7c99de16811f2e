"""Stores the journal in PostgreSQL: batch by batch, each in one transaction, in order.

    journal.read_batch --> landing: transaction of applier 1 -> applier 2 -> .. --> journal.commit
            ^                                                                             |
            `-----------------------------------------------------------------------------'

Rules of the file: a record leaves the journal only after a transaction that contains it (or its dead letter) was
committed. So everything may happen twice: the answer to COMMIT may be lost, or the process crash before
`journal.commit`. Appliers must recognise what they already have; dead letters must be idempotent per trace id and kind.

Failure mode: `landing` decides what becomes of records that the database refuses. A file that cannot be read is tried
again.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from proxy.config import schema
from proxy.journal.frames import Record
from proxy.journal.landing import Landing
from proxy.journal.reader import Batch
from proxy.journal.segment import Position
from proxy.journal.segments import Journal
from proxy.journal.transactions import Applier, DeadLetter, Sift, Transaction, Transactions, WriterStats

_log = logging.getLogger("sidegate.journal")
_TEND_EVERY_S = 1.0
_FRESH_BYTES = 4_194_304
"""This little, written this recently, is still in memory: reading it needs no thread."""
_ANY = (1, sys.maxsize)


class Writer:
    """The only reader of a journal."""

    def __init__(
        self,
        journal: Journal,
        *,
        transaction: Transaction,
        appliers: Sequence[Applier],
        sift: Sift,
        dead_letter: DeadLetter,
        settings: schema.Journal,
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._transactions = Transactions(
            transaction=transaction,
            appliers=appliers,
            sift=sift,
            dead_letter=dead_letter,
            retry_max_s=settings.retry_max_s,
            pause=self._pause,
        )
        self._landing = Landing(self._transactions, self._pause)
        self._full = (settings.batch_records, settings.batch_bytes)
        self._wake = asyncio.Event()
        self._advanced = asyncio.Event()
        self._awaited: tuple[int, int] | None = None
        """Number of records, and of bytes, that the loop waits for; `None`: it does not wait."""
        self._flushing = 0
        self._is_urgent = False

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
            await self._landing.land(batch.records, _Following(self._read, batch.end))
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
        return self._transactions.stats

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

    async def _read(self, after: Position | None = None) -> Batch:
        pauses = self._transactions.pauses()
        while True:
            try:
                if self._journal.unread_bytes <= _FRESH_BYTES:
                    return self._journal.read_batch(*self._full, after)
                # On a thread: the file may not be in memory, and a record may have 64 MiB.
                return await asyncio.to_thread(self._journal.read_batch, *self._full, after)
            except OSError as error:
                self._transactions.count(unexpected=1)
                _log.error("reading the journal failed; retrying", extra={"error": type(error).__name__})
            await self._pause(next(pauses))

    async def _pause(self, seconds: float) -> None:
        # The journal needs maintenance while the database is unavailable, too.
        self._journal.tend()
        self._announce()
        await asyncio.sleep(seconds)


class _Following:
    """Reads what follows a batch, piece by piece: the records may be large, and many."""

    def __init__(self, read: Callable[[Position], Awaitable[Batch]], first: Position) -> None:
        self._read = read
        self._first = self._next = first

    async def __call__(self) -> Sequence[Record]:
        while (batch := await self._read(self._next)).end != self._next:
            self._next = batch.end
            if batch.records:
                return batch.records
        self._next = self._first
        return ()
