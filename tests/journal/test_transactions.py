"""Whatever PostgreSQL answers, a transaction is committed, repeated, or refused in one of three ways."""

import pytest

from proxy.errors import (
    ConstraintViolated,
    DatabaseContended,
    DatabaseTooSlow,
    DatabaseUnavailable,
    DatabaseUnfit,
    RecordRejected,
)
from proxy.journal.frames import FINAL, Kind, Record
from proxy.journal.transactions import TooMuch, Transactions, Unexplained
from tests.journal.sink import Sink

ONE = [Record(FINAL, b"1" * 16, b"final", 1, 0)]
CONTENT = [Record(Kind.CONTENT, b"1" * 16, b"content", 2, 0)]
SEVERAL = [*ONE, *CONTENT]
AGAIN = 4


def transactions(sink: Sink, pauses: list[float]) -> Transactions:
    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == AGAIN:
            sink.trouble = lambda records: None

    return Transactions(
        transaction=sink.transaction,
        appliers=[sink],
        sift=sink.refused,
        dead_letter=sink.dead_letter,
        retry_max_s=1,
        pause=pause,
    )


@pytest.mark.parametrize(
    ("records", "error", "expected", "tries"),
    [
        (SEVERAL, RecordRejected("22P05"), RecordRejected, 1),
        (ONE, ConstraintViolated("SQLSTATE 23502"), Unexplained, 1),
        (ONE, ValueError("sk-secret"), Unexplained, 1),
        (ONE, DatabaseUnfit("SQLSTATE 42P01"), Unexplained, 1),
        (SEVERAL, DatabaseUnfit("SQLSTATE 42P01"), Unexplained, 1),
        (CONTENT, DatabaseUnfit("SQLSTATE 42P01"), None, AGAIN + 1),
        (SEVERAL, DatabaseUnavailable("away"), None, AGAIN + 1),
        (SEVERAL, DatabaseTooSlow("busy"), TooMuch, 1),
        (ONE, DatabaseTooSlow("busy"), None, AGAIN + 1),
        (SEVERAL, DatabaseContended("40P01"), TooMuch, 3),
        (ONE, DatabaseContended("40P01"), None, AGAIN + 1),
    ],
)
async def test_records_when_the_database_does_not_store_them_then_they_wait_or_one_of_three_refusals_says_why(
    records: list[Record], error: Exception, expected: type[Exception] | None, tries: int
) -> None:
    sink, pauses = Sink(), list[float]()
    sink.trouble = lambda records: error
    storing = transactions(sink, pauses)
    if expected is None:
        assert list(await storing.store(records)) == records
    else:
        with pytest.raises(expected) as caught:
            await storing.store(records)
        assert "secret" not in str(caught.value)
    assert len(sink.applied) == tries
    assert storing.stats.is_available is (expected is not TooMuch)


async def test_pauses_when_the_database_stays_away_then_they_double_up_to_the_limit() -> None:
    sink, pauses = Sink(), list[float]()
    sink.trouble = lambda records: DatabaseUnavailable("away")
    storing = transactions(sink, pauses)
    await storing.store(ONE)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, [0.1, 0.2, 0.4, 0.8], strict=True))
    assert (storing.stats.unavailable, storing.stats.batches) == (AGAIN, 1)


async def test_refused_when_the_question_fails_then_nothing_is_known() -> None:
    sink, pauses = Sink(), list[float]()
    sink.trouble = lambda records: ValueError("sk-secret")
    assert await transactions(sink, pauses).refused(SEVERAL) == {1: "SQLSTATE P0001 ValueError"}
    sink.sifts = False
    assert await transactions(sink, pauses).refused(SEVERAL) == {}
    assert not pauses
