"""Runs the writer's transactions, and reduces what PostgreSQL may answer to four outcomes.

    committed         the call returns
    no answer now     (away, overloaded, a table missing that all of them need) the same again, for as long as it takes
    `RecordRejected`  a value that PostgreSQL cannot hold: it never will
    `TooMuch`         several records took too long, or met other transactions again and again: try fewer
    `Unexplained`     any other refusal: a trigger of somebody else, a constraint, a bug of ours

Rule of the file: reasons name types and parts of the schema, never a message, which may quote data.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from proxy.errors import (
    ConstraintViolated,
    DatabaseContended,
    DatabaseTooSlow,
    DatabaseUnavailable,
    DatabaseUnfit,
    RecordRejected,
)
from proxy.journal.frames import FINAL, Record

_log = logging.getLogger("sidegate.journal")
_FIRST_PAUSE_S: Final = 0.1
_MOST_CONFLICTS: Final = 3
_T = TypeVar("_T")

Transaction = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens a transaction: leaving the block commits, an exception rolls back. Raises what `Applier.apply` raises."""

Sift = Callable[[Sequence[Record]], Awaitable[Mapping[bytes, str]]]
"""Returns the trace ids of finals that are refused even alone, with the reasons; stores nothing. It may miss some."""
Letter = tuple[Record, str]
"""A refused record, and the reason."""


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


class TooMuch(Exception):
    """So many records at once cannot be stored; fewer perhaps can. Never raised for a single one."""


class Unexplained(Exception):
    """A refusal whose reason may be that of one record or of all. The text is the reason."""


class Transactions:
    """The transactions of one writer. `pause`: sleeps, and tends the journal meanwhile."""

    def __init__(
        self,
        *,
        transaction: Transaction,
        appliers: Sequence[Applier],
        sift: Sift,
        dead_letter: DeadLetter,
        retry_max_s: float,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._transaction = transaction
        self._appliers = appliers
        self._sift = sift
        self._dead_letter = dead_letter
        self._retry_max_s = retry_max_s
        self._pause = pause
        self.stats = WriterStats()

    async def store(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store one or more records in one transaction; return those that were new.

        Raises:
            RecordRejected, TooMuch, Unexplained: nothing was stored.
        """
        is_one = len(records) == 1
        # All contents, or all leases, may lack a table of their own. Judged one by one, they would be found at fault
        # because finals, which do not need it, are stored.
        is_refusal = not is_one or records[0].kind is FINAL
        stored = await self._answered(partial(self._store, records), can_split=not is_one, unfit_is_refusal=is_refusal)
        self.count(batches=1, replayed=len(records) - len(stored))
        return stored

    async def refused(self, records: Sequence[Record]) -> Mapping[int, str]:
        """Ask which finals are refused even alone; return the reasons by `seq`. None may mean that nobody knows."""
        try:
            reasons = await self._sift(records)
        except Exception as error:  # whatever it is shows again where the records are stored
            _log.debug("refused records cannot be told apart at once: %s", type(error).__name__)
            return {}
        finals = [record for record in records if record.kind is FINAL]
        return {record.seq: reasons[record.trace_id] for record in finals if record.trace_id in reasons}

    async def keep(self, letters: Sequence[Letter], *, is_charged: bool) -> None:
        """Make dead letters of records. `is_charged`: do what is computed from them all the same.

        Raises:
            RecordRejected, TooMuch, Unexplained: nothing was stored.
        """
        keep = partial(self._keep, letters, is_charged)
        # Only the charge may lack something of its own: without it, wait for the table of the dead letters.
        await self._answered(keep, can_split=len(letters) > 1, unfit_is_refusal=is_charged)

    def pauses(self) -> Iterator[float]:
        """Yield pauses that double up to the limit, with random jitter, so that many proxies do not return at once."""
        pause_s = _FIRST_PAUSE_S
        while True:
            pause_s = min(pause_s, self._retry_max_s)
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s *= 2

    def count(self, **more: int) -> None:
        """Add to the totals."""
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + by for name, by in more.items()})

    def set_available(self, value: bool) -> None:
        """Note whether records can be stored; log it if that is new."""
        if value is not self.stats.is_available:
            self.stats = replace(self.stats, is_available=value)
            if value:
                _log.info("records are stored again")
            else:
                _log.warning("records cannot be stored and wait in the journal")

    async def _store(self, records: Sequence[Record]) -> Sequence[Record]:
        async with self._transaction() as connection:
            stored = new = await self._appliers[0].apply(connection, records)
            for applier in self._appliers[1:]:
                new = await applier.apply(connection, new)
        return stored

    async def _keep(self, letters: Sequence[Letter], is_charged: bool) -> None:
        async with self._transaction() as connection:
            keep = partial(self._dead_letter, connection, is_charged=is_charged)
            new = [record for record, reason in letters if await keep(record, reason)]
            if new and is_charged:
                for applier in self._appliers[1:]:
                    await applier.apply(connection, new)

    async def _answered(self, action: Callable[[], Awaitable[_T]], *, can_split: bool, unfit_is_refusal: bool) -> _T:
        """Run `action` until the database has given an answer.

        `unfit_is_refusal`: a table or a right that is missing refuses these records; else it is waited for.
        """
        pauses = self.pauses()
        conflicts = 0
        while True:
            try:
                done = await action()
                self.set_available(True)
                return done
            except ConstraintViolated as error:  # perhaps a rule that every row breaks
                self.count(unexpected=1)
                raise Unexplained(str(error)) from None
            except RecordRejected:
                self.set_available(True)
                raise
            except DatabaseUnavailable as error:
                self.count(unavailable=1)
                if unfit_is_refusal and isinstance(error, DatabaseUnfit):
                    raise Unexplained(str(error)) from None
                conflicts += isinstance(error, DatabaseContended)
                if can_split and (isinstance(error, DatabaseTooSlow) or conflicts == _MOST_CONFLICTS):
                    self.set_available(False)
                    raise TooMuch from None
            except Exception as error:
                self.count(unexpected=1)
                raise Unexplained(_described(error)) from None
            self.set_available(False)
            await self._pause(next(pauses))


def _described(error: Exception) -> str:
    """Name an error without its message, which may quote data."""
    state = getattr(error, "sqlstate", None)
    return type(error).__name__ if state is None else f"SQLSTATE {state} {type(error).__name__}"
