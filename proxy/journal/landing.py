"""Brings the records of a batch into PostgreSQL, whatever that says about them.

    the database answers           what happens                                     it ends with
    stored                                                                          done
    nothing (away, overloaded)     the same again after a pause                     as long as it takes
    cannot hold a value            halves, and halves of these                      that one record is buried
    too slow, or in deadlocks      halves, and halves of these                      a single one: again
    any other refusal              the same again; at the third time, the sixth,    those that are refused although
                                   the twelfth .. a look at each record; at the     others are stored are buried
                                   first if the batch before had that reason, too

To bury a record is to make a dead letter of it, and to charge what it says, if possible.

Rules of the file. The reason of "any other refusal" may be that of every record, so nothing is buried for it without
evidence (`evidence`); if the batch has none, the records that follow are asked. A lease gives back what the finals
before it have not spent, so it is never stored before those.

A look at each record begins with the question which finals are refused (`Transactions.refused`), one round trip for
all of them. The others are stored together, which is the evidence; those that are refused again are buried together.
What is not found so is found in halves.

Failure mode: without evidence nothing is lost; records wait until the reason is gone. It is counted, and logged without
any content.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from proxy.errors import RecordRejected
from proxy.journal.evidence import Evidence, Following, Witnesses, weight
from proxy.journal.frames import FINAL, LEASES, Record
from proxy.journal.transactions import TooMuch, Transactions, Unexplained

_log = logging.getLogger("sidegate.journal")
_LOOK_AT: Final = 3
_CHARGE_TRIES: Final = 3
_TOGETHER: Final = 100
"""How many are buried in one transaction: each takes a lock, and PostgreSQL has some thousand in all."""


class Landing:
    """`pause`: sleeps, and tends the journal meanwhile."""

    def __init__(self, transactions: Transactions, pause: Callable[[float], Awaitable[None]]) -> None:
        self._transactions = transactions
        self._pause = pause
        self._evidence = Evidence()
        self._why = ""
        """The reason of the latest unexplained refusal."""
        self._buried_for = ""
        """The reason of an unexplained refusal for which records of this batch were buried."""
        self._charge_tries = _CHARGE_TRIES
        """How often the charge of a dead letter is tried."""
        self._landed: Counter[str] = Counter()
        """What became of the records of the batch; counted as one, when all of it has landed."""

    async def land(self, records: Sequence[Record], following: Following) -> None:
        """Return once every record is stored, as itself or as a dead letter."""
        self._landed.clear()
        self._charge_tries = _CHARGE_TRIES
        witnesses = Witnesses(following)
        pauses = self._transactions.pauses()
        known, self._buried_for = self._buried_for, ""
        left = records
        for tries in itertools.count(1):
            is_look = _is_look(tries)
            if not is_look:
                left = await self._place(left, singly=False)
                is_look, known = bool(left) and self._why == known, ""
                if left:
                    self._log_unexplained()
            if is_look:
                left = await self._look(left, witnesses)
            if not left:
                break
            self._transactions.set_available(False)
            await self._pause(next(pauses))
        self._transactions.count(**self._landed)

    async def _look(self, records: Sequence[Record], witnesses: Witnesses) -> Sequence[Record]:
        """Find those that are refused alone, store the others, and judge; return those that have to wait."""
        self._evidence = Evidence()  # what was stored at an earlier try may have been before an outage
        refused = await self._transactions.refused(records)
        waiting = list[Record]()
        rest = list[Record]()
        for record in records:
            if record.seq in refused:
                self._evidence.note_refused(record)
                self._why = refused[record.seq]
                waiting.append(record)
            else:
                (waiting if waiting and record.kind in LEASES else rest).append(record)
        left = await self._place(rest, singly=True)
        if left or waiting:
            self._log_unexplained()
        return await self._judge([*left, *waiting], witnesses)

    async def _place(self, records: Sequence[Record], *, singly: bool) -> list[Record]:
        """Store what can be stored, bury what never can; return the rest, leases last.

        `singly`: also split what is refused without explanation, down to the single record.
        """
        if not records:
            return []
        is_one = len(records) == 1
        try:
            await self._store(records)
        except RecordRejected as rejection:
            if is_one:
                await self._bury(records[0], str(rejection))
                return []
        except TooMuch:
            pass
        except Unexplained:
            if is_one:
                self._evidence.note_refused(records[0])
            if is_one or not singly:
                return list(records)
        else:
            self._landed["records"] += len(records)
            return []
        middle = len(records) // 2
        left = await self._place(records[:middle], singly=singly)
        second, waiting = list(records[middle:]), []
        if left:
            waiting = [record for record in second if record.kind in LEASES]
            second = [record for record in second if record.kind not in LEASES]
        return [*left, *await self._place(second, singly=singly), *waiting]

    async def _judge(self, refused: Sequence[Record], witnesses: Witnesses) -> list[Record]:
        """Try those once more against which there is evidence, and bury them if they fail again; return the others."""
        evidence, left = self._evidence, list[Record]()
        await self._find_evidence([record for record in refused if evidence.is_suspect(record)], witnesses)
        guilty = [record for record in refused if evidence.is_suspect(record) and evidence.is_against(record)]
        buried = set[int]()
        for at in range(0, len(guilty), _TOGETHER):
            buried |= await self._bury_together(guilty[at : at + _TOGETHER])
        for record in refused:
            if record.seq in buried:
                continue
            is_suspect = evidence.is_suspect(record)
            if (left and record.kind in LEASES) or (is_suspect and not evidence.is_against(record)):
                left.append(record)
            elif await self._place([record], singly=True):
                if is_suspect:
                    self._buried_for = self._why
                    await self._bury(record, self._why)
                else:  # a lease that had waited for a final, and is tried for the first time
                    left.append(record)
        return left

    async def _find_evidence(self, suspects: Sequence[Record], witnesses: Witnesses) -> None:
        """Store records that come later, until there is evidence. They are counted when it is their turn."""
        open_ = [record for record in suspects if not self._evidence.is_against(record)]
        if not open_:
            return
        least = min(map(weight, open_))
        for _ in range(witnesses.allowance()):
            if (record := await witnesses.next(least)) is None:
                return
            with suppress(RecordRejected, Unexplained):
                await self._store([record])
            if all(map(self._evidence.is_against, open_)):
                return

    async def _store(self, records: Sequence[Record]) -> None:
        try:
            self._evidence.note_stored(await self._transactions.store(records))
        except Unexplained as refusal:
            self._why = str(refusal)
            raise

    async def _bury_together(self, suspects: Sequence[Record]) -> set[int]:
        """Bury the finals that are refused once more, in one transaction; return their `seq`, none if that fails."""
        reasons = await self._transactions.refused(suspects)
        letters = [(record, reasons[record.seq]) for record in suspects if record.seq in reasons]
        if not letters:
            return set()
        try:
            await self._transactions.keep(letters, is_charged=True)
        except (RecordRejected, TooMuch, Unexplained):
            return set()  # perhaps the charge of one of them is refused: one by one
        for record, reason in letters:
            self._buried_for = reason
            self._note_buried(record, reason)
        return set(reasons)

    async def _bury(self, record: Record, reason: str) -> None:
        """Make a dead letter, with its charge if that works at one of the first tries, else without."""
        pauses = self._transactions.pauses()
        is_charged = record.kind is FINAL
        tries = self._charge_tries
        while True:
            try:
                await self._transactions.keep([(record, reason)], is_charged=is_charged)
                break
            except RecordRejected:
                if not is_charged:
                    self._landed["lost"] += 1
                    return _log.error("a record cannot be stored in any form", extra=_identity(record))
                is_charged = False
            except Unexplained as refusal:
                self._why = str(refusal)
                self._log_unexplained()
                tries -= 1
                if is_charged and not tries:
                    is_charged = False
                    # The charges of many may be refused, and what follows waits for all of them.
                    self._charge_tries = 1
                else:
                    await self._pause(next(pauses))
        self._note_buried(record, reason)

    def _note_buried(self, record: Record, reason: str) -> None:
        self._landed["dead_letters"] += 1
        told = {**_identity(record), "reason": reason[:200]}
        _log.warning("a record was rejected and moved to the dead letters", extra=told)

    def _log_unexplained(self) -> None:
        _log.error("storing records failed; retrying", extra={"error": self._why})


def _identity(record: Record) -> dict[str, str]:
    return {"trace_id": record.trace_id.hex(), "kind": record.kind.name.lower()}


def _is_look(tries: int) -> bool:
    """Tell whether each record is looked at: at the third try, and whenever as many have passed again (6, 12, 24)."""
    times, rest = divmod(tries, _LOOK_AT)
    return not rest and not times & (times - 1)
