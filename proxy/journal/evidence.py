"""Tells a record that is at fault from a database that refuses all records like it for the time being.

    time --->   suspect refused        another one stored        suspect refused again: it is at fault
                      |-------- the database was at work --------|

Any other order proves nothing: what was stored before the first refusal may have been stored before an outage began.

Only a record that needs at least as much can speak against a suspect. A content needs less than a trace, and a trace
without a charge less than one with a charge, because the quota's own tables may be what refuses. For contents and
leases the order does not matter: nobody is charged too little if they are put aside.

No I/O: `landing` tells what happens, and reads the witnesses.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from proxy.journal.frames import FINAL, LEASES, Record

WITNESSES: Final = 20
"""How many records that follow a batch are tried for evidence the first time; each time twice as many."""
_UNCHARGED: Final = b'"quota":null'
_LEAST, _TRACE, _CHARGED = range(3)

Following = Callable[[], Awaitable[Sequence[Record]]]
"""Reads the next of the records that follow a batch; none at their end, and then the first ones again."""


class Evidence:
    """What one look at each record of a batch has shown."""

    def __init__(self) -> None:
        self._time = 0
        self._stored_at = [0, 0, 0]
        """When a record of each weight was stored last; 0: none."""
        self._refused_at: dict[int, int] = {}
        """When each suspect was refused last, by `seq`."""

    def note_stored(self, records: Iterable[Record]) -> None:
        """Note records that were stored and were new: for those that were there already nothing had to work."""
        self._time += 1
        for record in records:
            self._stored_at[weight(record)] = self._time

    def note_refused(self, record: Record) -> None:
        """Note a record that was refused although it was tried alone."""
        self._time += 1
        self._refused_at[record.seq] = self._time

    def is_suspect(self, record: Record) -> bool:
        """Tell whether the record was refused when it was tried alone."""
        return record.seq in self._refused_at

    def is_against(self, suspect: Record) -> bool:
        """Tell whether the suspect is at fault if it is refused once more now."""
        since = self._refused_at[suspect.seq] if suspect.kind is FINAL else 0
        return max(self._stored_at[weight(suspect) :]) > since


class Witnesses:
    """Chooses records that follow a batch, so that in the end all of them are asked, with few of them in memory."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._read: Sequence[Record] = ()
        """The latest ones that were read, from the one that is next."""
        self._most = WITNESSES

    def allowance(self) -> int:
        """Return how many to ask this time."""
        most, self._most = self._most, self._most * 2
        return most

    async def next(self, least: int) -> Record | None:
        """Return the next one of at least this weight; `None` at the end, and then the first one again."""
        while True:
            for at, record in enumerate(self._read):
                if record.kind not in LEASES and weight(record) >= least:
                    self._read = self._read[at + 1 :]
                    return record
            self._read = await self._following()
            if not self._read:
                return None


def weight(record: Record) -> int:
    """Rank a record by what has to work for it to be stored: a trace and a charge, a trace, or less."""
    if record.kind is not FINAL:
        return _LEAST
    return _TRACE if _UNCHARGED in record.body else _CHARGED
