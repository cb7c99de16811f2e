"""Brings the records of a batch into PostgreSQL, whatever that says about them.

    stored                                    done
    unavailable                               the same again after a pause, for as long as it takes
    too slow, or a value that cannot be held  in halves, down to the single record; that is too slow: again; else buried
    in a deadlock for the third time          in halves, which hold fewer locks, down to the single record; that: again
    refused for any other reason              the same again after a pause; at the third time, the sixth, the twelfth ..
                                              each for itself: those that fail while others are stored are buried

To bury: the record becomes a dead letter, and what is computed from it (its charge) is done all the same, if possible.

Rules of the file: a reason that could be that of every record (a trigger of somebody else, a constraint, a bug of ours)
proves nothing as long as no other record like it is stored between two failures: it may be an outage. The proof may be
a record that follows the batch. A lease gives back what the finals before it have not spent, so it is never stored
before those.

Failure mode: without a proof nothing is lost until the reason is gone; it is counted, and logged without any content.
"""

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from proxy.errors import (
    ConstraintViolated,
    DatabaseContended,
    DatabaseTooSlow,
    DatabaseUnavailable,
    DatabaseUnfit,
    RecordRejected,
)
from proxy.journal.frames import FINAL, LEASES, Record

_log = logging.getLogger("sidegate.journal")
_FIRST_PAUSE_S = 0.1
_THOROUGH: Final = 3
WITNESSES: Final = 20
"""So many records that follow a batch are tried, one by one, for a proof; each time twice as many, further on."""
_UNCHARGED: Final = b'"quota":null'

Transaction = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a transaction: leaving the block commits, an exception rolls back. Raises what `Applier.apply` raises."""
Following = Callable[[], Awaitable[Sequence[Record]]]
"""Reads the next of the records that follow a batch; none at their end, and then the first ones again."""


class DeadLetter(Protocol):
    """Where refused records are kept."""

    async def __call__(self, connection: Any, record: Record, reason: str, /, *, is_charged: bool) -> bool:
        """Store a refused record in the transaction of `connection`; tell whether it was not there yet."""


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


class _Unexplained(Exception):
    """Refused for a reason that may be any record's."""


class Landing:
    """`pause`: sleeps, and tends the journal meanwhile."""

    def __init__(
        self,
        *,
        transaction: Transaction,
        appliers: Sequence[Applier],
        dead_letter: DeadLetter,
        retry_max_s: float,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._transaction = transaction
        self._appliers = appliers
        self._dead_letter = dead_letter
        self._retry_max_s = retry_max_s
        self._pause = pause
        self.stats = WriterStats()
        self._why = ""
        """The latest unexplained reason: names of types and of the schema alone."""
        self._is_thorough = False
        """Each record is looked at by itself."""
        self._stored: list[int] = []
        """What the new records can prove that were stored in this look at each record, in order."""
        self._failed_at: dict[int, int] = {}
        """How many these were when a record failed alone, by its `seq`."""
        self._chances = 0
        """How often the charge of a dead letter is tried."""
        self._landed: Counter[str] = Counter()
        """What became of the records of the batch; counted as one, when all of it has landed."""

    async def land(self, records: Sequence[Record], following: Following) -> None:
        """Return once every record is stored, as itself or as a dead letter."""
        self._landed.clear()
        self._chances = _THOROUGH
        witnesses = _Witnesses(following)
        pauses = self.pauses()
        tries = 0
        while True:
            tries += 1
            self._is_thorough = _is_thorough(tries)
            self._stored.clear()  # what was stored before may have been before an outage
            self._failed_at.clear()
            left = await self._place(records, apart=self._is_thorough)
            if left:
                self._note_unexpected(self._why)
            if self._is_thorough and left:
                left = await self._judge(left, witnesses)
            if not left:
                return self._count(**self._landed)
            records = left
            self._set_available(False)
            await self._pause(next(pauses))

    def pauses(self) -> Iterator[float]:
        """Yield pauses that double up to the limit, with random jitter, so that many proxies do not return at once."""
        pause_s = _FIRST_PAUSE_S
        while True:
            pause_s = min(pause_s, self._retry_max_s)
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s *= 2

    def note_failure(self, error: Exception) -> None:
        """Count and log a failure that is no refusal."""
        self._count(unexpected=1)
        self._note_unexpected(type(error).__name__)

    async def _place(self, records: Sequence[Record], *, apart: bool) -> list[Record]:
        """Store what can be stored; return the rest, in order. `apart`: split what is refused without explanation."""
        if not records:
            return []
        is_one = len(records) == 1
        try:
            await self._until_available(partial(self._apply, records), is_one=is_one, suspect=records[0])
            self._landed["records"] += len(records)
            return []
        except RecordRejected as rejection:
            if is_one:
                await self._bury(records[0], str(rejection))
                return []
        except (DatabaseTooSlow, DatabaseContended):
            pass
        except _Unexplained:
            if is_one:
                self._failed_at[records[0].seq] = len(self._stored)
            if is_one or not apart:
                return list(records)
        middle = len(records) // 2
        left = await self._place(records[:middle], apart=apart)
        rest = records[middle:]
        if not left:
            return await self._place(rest, apart=apart)
        left += await self._place([record for record in rest if record.kind not in LEASES], apart=apart)
        left += [record for record in rest if record.kind in LEASES]
        return left

    async def _judge(self, suspects: Sequence[Record], witnesses: "_Witnesses") -> list[Record]:
        """Bury those that are proven to be at fault; return the others."""
        left: list[Record] = []
        await self._find_proof([record for record in suspects if record.seq in self._failed_at], witnesses)
        for record in suspects:
            has_failed = record.seq in self._failed_at
            if (left and record.kind in LEASES) or (has_failed and not self._is_proven(record)):
                left.append(record)
            elif await self._place([record], apart=True):
                if has_failed:
                    await self._bury(record, self._why)
                else:
                    left.append(record)
        return left

    def _is_proven(self, record: Record) -> bool:
        """Tell whether another one that shows as much was stored; of a final, only after it had failed itself."""
        since = self._failed_at[record.seq] if record.kind is FINAL else 0
        return max(self._stored[since:], default=-1) >= _proves(record)

    async def _find_proof(self, suspects: Sequence[Record], witnesses: "_Witnesses") -> None:
        """Store one of the records that come later. They are counted when it is their turn."""
        open_ = [record for record in suspects if not self._is_proven(record)]
        if not open_:
            return
        needed = min(map(_proves, open_))
        for _ in range(witnesses.allowance()):
            if (record := await witnesses.next(needed)) is None:
                return
            with suppress(RecordRejected, _Unexplained):
                await self._until_available(partial(self._apply, [record]), is_one=True, suspect=record)
            if all(map(self._is_proven, open_)):
                return

    async def _apply(self, records: Sequence[Record]) -> None:
        async with self._transaction() as connection:
            stored = new = await self._appliers[0].apply(connection, records)
            for applier in self._appliers[1:]:
                new = await applier.apply(connection, new)
        self._count(batches=1, replayed=len(records) - len(stored))
        # One that was there already says nothing: no trigger may have run, and nothing was charged.
        if self._is_thorough:
            self._stored += map(_proves, stored)

    async def _bury(self, record: Record, reason: str) -> None:
        """Make a dead letter; for an unknown reason that hits those too, again and again, but soon without a charge."""
        identity = {"trace_id": record.trace_id.hex(), "kind": record.kind.name.lower()}
        pauses = self.pauses()
        chances = self._chances if record.kind is FINAL else 0
        while True:
            is_charged = chances > 0
            try:
                keep, suspect = partial(self._keep, record, reason, is_charged), record if is_charged else None
                await self._until_available(keep, is_one=True, suspect=suspect)
                break
            except RecordRejected:
                if not is_charged:
                    self._landed["lost"] += 1
                    return _log.error("a record cannot be stored in any form", extra=identity)
                chances = 0
            except _Unexplained:
                self._note_unexpected(self._why)
                chances -= 1
                if not chances:
                    self._chances = 1  # the charges of many may be refused, and what follows waits for all of them
                else:
                    await self._pause(next(pauses))
        self._landed["dead_letters"] += 1
        told = {**identity, "reason": reason[:200]}
        _log.warning("a record was rejected and moved to the dead letters", extra=told)

    async def _keep(self, record: Record, reason: str, is_charged: bool) -> None:
        async with self._transaction() as connection:
            is_new = await self._dead_letter(connection, record, reason, is_charged=is_charged)
            if is_new and is_charged:
                for applier in self._appliers[1:]:
                    await applier.apply(connection, [record])

    async def _until_available(
        self, action: Callable[[], Awaitable[None]], *, is_one: bool, suspect: Record | None = None
    ) -> None:
        """Run `action` until the database has given an answer. `suspect`: the record that is stored, or the first one.

        Raises:
            RecordRejected: the database cannot hold a value.
            DatabaseTooSlow: several records took too long; not if it is one.
            DatabaseContended: several records met other transactions again and again; not if it is one.
            _Unexplained: any other refusal.
        """
        pauses = self.pauses()
        contended = 0
        while True:
            try:
                await action()
                self._set_available(True)
                return
            except ConstraintViolated as error:
                self._why = str(error)
                self._count(unexpected=1)
                raise _Unexplained from None
            except RecordRejected:
                self._set_available(True)
                raise
            except DatabaseUnavailable as error:
                self._count(unavailable=1)
                # Contents or leases alone may all lack it, and finals would be taken for a proof.
                if suspect and isinstance(error, DatabaseUnfit) and not (is_one and suspect.kind is not FINAL):
                    self._why = str(error)
                    raise _Unexplained from None
                contended += isinstance(error, DatabaseContended)
                if not is_one and (isinstance(error, DatabaseTooSlow) or contended == _THOROUGH):
                    self._set_available(False)
                    raise
            except Exception as error:
                self._why = _described(error)
                self._count(unexpected=1)
                raise _Unexplained from None
            self._set_available(False)
            await self._pause(next(pauses))

    def _note_unexpected(self, why: str) -> None:
        _log.error("storing records failed; retrying", extra={"error": why})

    def _set_available(self, value: bool) -> None:
        if value is not self.stats.is_available:
            self.stats = replace(self.stats, is_available=value)
            if value:
                _log.info("records are stored again")
            else:
                _log.warning("records cannot be stored and wait in the journal")

    def _count(self, **more: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + by for name, by in more.items()})


class _Witnesses:
    """Chooses records that follow a batch, so that in the end all of them are asked, with little of them in memory."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._read: Sequence[Record] = ()
        """The latest ones that were read, from the one that is next."""
        self._most = WITNESSES

    def allowance(self) -> int:
        """Return how many to ask this time."""
        most, self._most = self._most, self._most * 2
        return most

    async def next(self, needed: int) -> Record | None:
        """Return the next one that can prove so much; `None` at the end, and then the first one again."""
        while True:
            for at, record in enumerate(self._read):
                if record.kind not in LEASES and _proves(record) >= needed:
                    self._read = self._read[at + 1 :]
                    return record
            self._read = await self._following()
            if not self._read:
                return None


def _proves(record: Record) -> int:
    """Rank a record by what it shows when it is stored: a trace and a charge, a trace, or less."""
    if record.kind is not FINAL:
        return 0
    return 1 if _UNCHARGED in record.body else 2


def _is_thorough(tries: int) -> bool:
    """Tell whether it is worth to try each record: at the third time, and each time when as many have passed again."""
    times, rest = divmod(tries, _THOROUGH)
    return not rest and not times & (times - 1)


def _described(error: Exception) -> str:
    """Name an error without its message, which may quote data."""
    state = getattr(error, "sqlstate", None)
    return type(error).__name__ if state is None else f"SQLSTATE {state} {type(error).__name__}"
