"""A record is put aside only if others prove that it is at fault; its charge is made all the same."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConstraintViolated, DatabaseContended, DatabaseTooSlow, DatabaseUnfit, RecordRejected
from proxy.journal.evidence import WITNESSES
from proxy.journal.frames import FINAL, LEASES, Kind, Record
from proxy.journal.segments import Journal
from tests.journal.disk import make_settings, trace_id
from tests.journal.sink import Sink, running


class RaiseError(Exception):
    sqlstate = "P0001"


class Charges:
    """The applier behind the sink."""

    def __init__(self) -> None:
        self.seen: list[tuple[Kind, bytes]] = []
        self.refuses: Callable[[Record], bool] = lambda record: False
        self.make: Callable[[], Exception] = lambda: RaiseError("sk-secret")

    async def apply(self, connection: Any, records: Sequence[Record]) -> Sequence[Record]:
        if any(map(self.refuses, records)):
            raise self.make()
        self.seen += [(record.kind, record.trace_id) for record in records]
        return records


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, make_settings())
    journal.open()
    yield journal
    journal.close()


@pytest.fixture(params=[True, False], ids=["at once", "one by one"], autouse=True)
def sifts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run each test in both ways in which refused records are found."""
    monkeypatch.setattr(Sink, "sifts", request.param)
    return request.param


at_once = pytest.mark.parametrize("sifts", [True], ids=["at once"], indirect=True)
one_by_one = pytest.mark.parametrize("sifts", [False], ids=["one by one"], indirect=True)


def bad(record: Record) -> bool:
    return record.body.startswith(b"bad")


def raise_for(
    guilty: Callable[[Record], bool], make: Callable[[], Exception] = lambda: RaiseError("sk-secret")
) -> Callable[[Sequence[Record]], Exception | None]:
    return lambda records: make() if any(map(guilty, records)) else None


@pytest.mark.parametrize(
    "make", [lambda: RaiseError("sk-secret"), lambda: ConstraintViolated("SQLSTATE 23502")], ids=["trigger", "rule"]
)
async def test_record_when_a_trigger_refuses_it_and_not_the_others_then_it_alone_is_put_aside_and_charged(
    make: Callable[[], Exception], journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(bad, make)
    for number in range(100):
        journal.append_final(trace_id(number), b"bad sk-secret" if number == 42 else b"final")
    async with running(journal, sink, charges, batch_records=100) as writer:
        assert await writer.flush(10)
        stats = writer.stats()
    assert len(sink.rows) == 99 and list(sink.dead) == [(FINAL, trace_id(42))]
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(100)]
    assert (stats.records, stats.dead_letters, stats.lost, stats.replayed) == (99, 1, 0, 0)
    assert "P0001" in sink.dead[FINAL, trace_id(42)] or "23502" in sink.dead[FINAL, trace_id(42)]
    assert "sk-secret" not in caplog.text + str([vars(entry) for entry in caplog.records])
    assert sum(entry.levelno == logging.ERROR for entry in caplog.records) == 3


async def test_batches_when_a_trigger_refuses_many_of_each_then_few_transactions_tell_and_no_innocent_one_is_put_aside(
    sifts: bool, journal: Journal
) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(bad)
    for number in range(600):
        journal.append_final(trace_id(number), b"bad" if number % 12 == 5 else b"final")
    async with running(journal, sink, charges, batch_records=200, retry_max_s=60) as writer:
        assert await writer.flush(10)
        stats = writer.stats()
    assert {name for _, name in sink.dead} == {trace_id(number) for number in range(5, 600, 12)}
    assert all(sink.charged.values()) and (stats.records, stats.dead_letters, stats.lost) == (550, 50, 0)
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(600)]
    if sifts:
        # Each: all of them; the good ones; the letters. The first once more: the reason may have been an outage.
        assert sink.transactions == 3 * 3 + 1 and len(sink.sifted) == 3 * 2


@at_once
async def test_batch_when_many_are_refused_then_no_transaction_buries_more_than_a_hundred(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = raise_for(bad)
    for number in range(251):
        journal.append_final(trace_id(number), b"bad" if number else b"final")
    async with running(journal, sink, batch_records=251) as writer:
        assert await writer.flush(10)
    assert len(sink.dead) == 250 and sink.sifted == [251, 100, 100, 50]


@at_once
async def test_outage_when_it_begins_after_refused_records_were_found_then_those_it_hits_are_not_put_aside(
    journal: Journal,
) -> None:
    sink = Sink()
    is_over = False
    sink.trouble = lambda records: RaiseError() if not is_over and (sink.sifted or any(map(bad, records))) else None
    for number in range(20):
        journal.append_final(trace_id(number), b"bad" if number == 4 else b"final")
    async with running(journal, sink, batch_records=20) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead
        is_over = True
        assert await writer.flush(5)
    assert len(sink.rows) == 20 and not sink.dead


async def test_record_when_it_is_alone_then_one_that_comes_later_proves_its_fault(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(bad)
    journal.append_final(trace_id(1), b"bad")
    async with running(journal, sink, charges) as writer:
        assert not await writer.flush(0.3)
        assert not sink.dead and not sink.rows
        journal.append_final(trace_id(2), b"final")
        assert await writer.flush(5)
        stats = writer.stats()
    assert list(sink.dead) == [(FINAL, trace_id(1))] and list(sink.rows) == [(FINAL, trace_id(2))]
    assert sorted(charges.seen) == [(FINAL, trace_id(1)), (FINAL, trace_id(2))]
    assert (stats.records, stats.dead_letters) == (1, 1)


async def test_reason_when_it_hits_every_record_then_all_wait_until_it_is_gone(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(lambda record: True)
    for number in range(40):
        journal.append_final(trace_id(number), b"final")
    async with running(journal, sink, charges, batch_records=20) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead and not sink.rows and journal.depth == 40
        assert not writer.stats().is_available
        sink.trouble = raise_for(lambda record: False)
        assert await writer.flush(5)
        assert writer.stats().is_available
    assert len(sink.rows) == 40 and not sink.dead
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(40)]


async def test_reason_when_it_hits_every_record_then_few_others_are_tried_for_a_proof(
    sifts: bool, journal: Journal
) -> None:
    sink = Sink()
    sink.trouble = raise_for(lambda record: True)
    for number in range(600):
        journal.append_final(trace_id(number), b"final")
    # Two tries of all; then all, at once or down to the single records; then what follows.
    expected = 2 + (0 if sifts else 199) + WITNESSES
    async with running(journal, sink, batch_records=100, retry_max_s=60) as writer:
        async with asyncio.timeout(5):
            while len(sink.applied) < expected:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # the next try is 0.2 s away, or more
        assert len(sink.applied) == expected
        assert writer.stats().records == 0


async def test_proof_when_it_is_far_behind_then_it_is_found_with_one_batch_at_a_time_in_memory(
    sifts: bool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, read = Sink(), journal.read_batch
    sink.trouble = raise_for(bad)
    refused = 3 * WITNESSES
    for number in range(refused + WITNESSES):
        journal.append_final(trace_id(number), b"bad" if number < refused else b"final")
    tried: list[int] = []

    def note(*limits: Any) -> Any:
        tried.append(len(sink.applied))
        return read(*limits)

    monkeypatch.setattr(journal, "read_batch", note)
    async with running(journal, sink, batch_records=WITNESSES) as writer:
        assert await writer.flush(20)
    assert (len(sink.dead), len(sink.rows)) == (refused, WITNESSES)
    # Two tries of all, all at once or one by one, one batch of those that follow; the same again, and two batches.
    each = 0 if sifts else 39
    once = 2 + each + WITNESSES
    assert tried[:5] == [0, 2 + each, once + 2 + each, 2 * once, 2 * once + 1 + (0 if sifts else WITNESSES)]


@one_by_one
async def test_outage_when_it_begins_while_each_record_is_tried_then_only_the_one_at_fault_is_put_aside(
    journal: Journal,
) -> None:
    sink, charges = Sink(), Charges()
    is_over = False

    def outage(records: Sequence[Record]) -> Exception | None:
        return RaiseError() if any(map(bad, records)) or (len(sink.rows) >= 30 and not is_over) else None

    sink.trouble = outage
    for number in range(100):
        journal.append_final(trace_id(number), b"bad" if number == 4 else b"final")
    async with running(journal, sink, charges, batch_records=100) as writer:
        assert not await writer.flush(0.5)
        assert set(sink.dead) == {(FINAL, trace_id(4))}
        is_over = True
        assert await writer.flush(5)
    assert set(sink.dead) == {(FINAL, trace_id(4))} and len(sink.rows) == 99
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(100)]


async def test_charges_when_all_are_refused_then_a_record_without_one_proves_nothing(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    charges.refuses = lambda record: record.body == b"final"
    for number in range(60):
        journal.append_final(trace_id(number), b'{"quota":null}' if number % 3 else b"final")
    async with running(journal, sink, charges, batch_records=20) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead
        charges.refuses = lambda record: False
        assert await writer.flush(5)
    assert len(sink.rows) == 60 and not sink.dead
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(60)]


async def test_charges_when_those_of_many_are_refused_then_the_others_do_not_wait_for_three_tries_of_each(
    journal: Journal,
) -> None:
    sink, charges = Sink(), Charges()
    charges.refuses = bad
    keep, tried = sink.dead_letter, [0]

    async def count(connection: Sink, record: Record, reason: str, *, is_charged: bool) -> bool:
        tried[0] += is_charged
        return await keep(connection, record, reason, is_charged=is_charged)

    sink.dead_letter = count  # type: ignore[method-assign]
    for number in range(41):
        journal.append_final(trace_id(number), b"bad" if number < 40 else b"final")
    async with running(journal, sink, charges, batch_records=41) as writer:
        assert await writer.flush(5)
    assert len(sink.dead) == 40 and not any(sink.charged.values())
    assert tried[0] == 3 + 39


async def test_record_when_something_is_missing_for_it_alone_then_it_is_put_aside(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = raise_for(bad, lambda: DatabaseUnfit("SQLSTATE 42P01"))
    for number in range(20):
        journal.append_final(trace_id(number), b"bad" if number == 7 else b"final")
    async with running(journal, sink, batch_records=10) as writer:
        assert await writer.flush(5)
    assert list(sink.dead) == [(FINAL, trace_id(7))] and len(sink.rows) == 19


@pytest.mark.parametrize("kind", [FINAL, Kind.CONTENT, Kind.LEASE_KEPT], ids=lambda kind: kind.name)
async def test_kind_of_records_when_something_is_missing_for_all_of_it_then_it_waits(
    kind: Kind, journal: Journal
) -> None:
    sink = Sink()
    sink.trouble = raise_for(lambda record: record.kind is kind, lambda: DatabaseUnfit("SQLSTATE 42703"))
    for number in range(20):
        journal.append_final(trace_id(number), b"final")
        journal.append_content(trace_id(number), b"content")
        journal.append_lease(trace_id(99 + number), b"lease", ended=False)
    async with running(journal, sink, batch_records=10) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead and not writer.stats().is_available
        sink.trouble = raise_for(lambda record: False)
        assert await writer.flush(5)
    assert not sink.dead and len(sink.rows) == 60


async def test_counts_when_a_part_of_a_batch_has_landed_then_they_wait_for_the_whole(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = raise_for(lambda record: record.kind is FINAL)
    journal.append_final(trace_id(1), b"final")
    journal.append_content(trace_id(1), b"content")
    async with running(journal, sink, batch_delay_ms=1) as writer:
        async with asyncio.timeout(5):
            while not sink.rows:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert (writer.stats().records, journal.depth) == (0, 2)
        sink.trouble = raise_for(lambda record: False)
        assert await writer.flush(5)
        assert (writer.stats().records, journal.depth) == (2, 0)


async def test_proof_when_it_is_older_than_the_reason_then_it_counts_for_nothing(journal: Journal) -> None:
    sink = Sink()
    sink.poison = lambda record: record.body == b"poison" or (record.body == b"late" and len(sink.rows) < 2)
    for number, body in enumerate([b"final", b"final", b"late", b"late"]):
        journal.append_final(trace_id(number), body)
    begun = [0]

    def outage(records: Sequence[Record]) -> Exception | None:
        if len(sink.rows) < 2:
            return None
        begun[0] += 1
        return RaiseError()

    sink.trouble = outage
    async with running(journal, sink, batch_records=4, retry_max_s=0.01) as writer:
        assert not await writer.flush(0.5)
        assert begun[0] > 6 and not sink.dead
        sink.trouble = raise_for(lambda record: False)
        assert await writer.flush(5)
    assert len(sink.rows) == 4 and not sink.dead


async def test_proof_when_it_was_stored_before_then_it_counts_for_nothing(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    for number in range(2):
        journal.append_final(trace_id(number), b"final")
    async with running(journal, sink, charges) as writer:
        assert await writer.flush(5)
    charges.refuses = lambda record: True
    for number in (0, 1, 2, 0):
        journal.append_final(trace_id(number), b"final")
    async with running(journal, sink, charges) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead
        charges.refuses = lambda record: False
        assert await writer.flush(5)
    assert sorted(charges.seen) == [(FINAL, trace_id(number)) for number in range(3)]


async def test_reason_when_it_passes_while_the_others_are_tried_then_nothing_is_put_aside(
    sifts: bool, journal: Journal
) -> None:
    sink = Sink()
    left = [3 if sifts else 4]  # all of them twice, and the record alone; and one half

    def sometimes(records: Sequence[Record]) -> Exception | None:
        if any(map(bad, records)) and left[0]:
            left[0] -= 1
            return RaiseError()
        return None

    sink.trouble = sometimes
    for number in range(2):
        journal.append_final(trace_id(number), b"bad" if number else b"final")
    async with running(journal, sink, batch_records=2) as writer:
        assert await writer.flush(5)
        assert writer.stats().records == 2
    assert len(sink.rows) == 2 and not sink.dead


async def test_finals_when_only_contents_are_stored_then_they_wait(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = raise_for(lambda record: record.kind is FINAL)
    journal.append_final(trace_id(1), b"final")
    journal.append_content(trace_id(1), b"content")
    async with running(journal, sink) as writer:
        assert not await writer.flush(0.5)
        assert not sink.dead
    sink.trouble = raise_for(lambda record: record.kind is not FINAL)
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.dead) == [(Kind.CONTENT, trace_id(1))]


async def test_leases_when_a_final_before_them_is_refused_then_they_give_nothing_back_before_it_is_charged(
    journal: Journal,
) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(bad)
    journal.append_final(trace_id(1), b"final")
    journal.append_final(trace_id(2), b"bad")
    journal.append_lease(trace_id(9), b"lease", ended=False)
    journal.append_final(trace_id(3), b"final")
    async with running(journal, sink, charges) as writer:
        assert await writer.flush(5)
    order = [(kind in LEASES, name) for kind, name in charges.seen]
    assert order.index((False, trace_id(2))) < order.index((True, trace_id(9)))
    assert list(sink.dead) == [(FINAL, trace_id(2))] and len(sink.rows) == 3


async def test_lease_when_only_a_later_final_is_refused_then_it_does_not_wait_with_that(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    sink.trouble = raise_for(bad)
    journal.append_lease(trace_id(8), b"lease", ended=False)
    journal.append_final(trace_id(1), b"bad")
    journal.append_lease(trace_id(9), b"lease", ended=False)
    async with running(journal, sink, charges) as writer:
        assert not await writer.flush(0.5)  # no final was stored that speaks against the bad one
        assert [name for _, name in charges.seen] == [trace_id(8)]
        journal.append_final(trace_id(2), b"final")
        assert await writer.flush(5)
    assert charges.seen[-1][1] == trace_id(9) and list(sink.dead) == [(FINAL, trace_id(1))]


async def test_lease_when_it_alone_is_refused_then_it_is_put_aside(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = raise_for(lambda record: record.kind in LEASES)
    journal.append_final(trace_id(1), b"final")
    journal.append_lease(trace_id(9), b"lease", ended=True)
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.dead) == [(Kind.LEASE_ENDED, trace_id(9))]


@pytest.mark.parametrize("make", [RaiseError, lambda: DatabaseUnfit("SQLSTATE 42P01")], ids=["refused", "missing"])
async def test_charge_when_it_is_refused_then_the_record_is_put_aside_without_it(
    make: Callable[[], Exception], journal: Journal
) -> None:
    sink, charges = Sink(), Charges()
    charges.refuses, charges.make = bad, make
    journal.append_final(trace_id(1), b"bad")
    journal.append_final(trace_id(2), b"final")
    async with running(journal, sink, charges) as writer:
        assert await writer.flush(5)
    assert list(sink.dead) == [(FINAL, trace_id(1))]
    assert (sink.charged, charges.seen) == ({(FINAL, trace_id(1)): False}, [(FINAL, trace_id(2))])


async def test_witness_when_it_is_refused_too_then_the_next_one_is_asked(journal: Journal) -> None:
    sink = Sink()
    sink.poison = lambda record: record.body == b"poison"
    sink.trouble = raise_for(bad)
    for number, body in enumerate([b"bad", b"bad", b"poison", b"final", b"final"]):
        journal.append_final(trace_id(number), body)
    async with running(journal, sink, batch_records=1) as writer:
        assert await writer.flush(5)
    assert set(sink.dead) == {(FINAL, trace_id(number)) for number in range(3)}
    assert list(sink.rows) == [(FINAL, trace_id(3)), (FINAL, trace_id(4))]


async def test_batch_when_it_takes_too_long_then_it_is_stored_in_pieces(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = lambda records: DatabaseTooSlow("busy") if len(records) > 10 else None
    for number in range(100):
        journal.append_final(trace_id(number), b"final")
    async with running(journal, sink, batch_records=100) as writer:
        assert await writer.flush(5)
        assert (writer.stats().records, writer.stats().unexpected) == (100, 0)
    assert len(sink.rows) == 100 and len(sink.applied) == 31


async def test_batch_when_it_deadlocks_again_and_again_then_it_is_stored_in_pieces(journal: Journal) -> None:
    sink = Sink()
    sink.trouble = lambda records: DatabaseContended("40P01") if len(records) > 30 else None
    for number in range(100):
        journal.append_final(trace_id(number), b"final")
    async with running(journal, sink, batch_records=100) as writer:
        assert await writer.flush(5)
        assert (writer.stats().records, writer.stats().unavailable) == (100, 9)
    assert len(sink.rows) == 100 and sink.applied == [100] * 3 + [50] * 3 + [25] * 2 + [50] * 3 + [25] * 2


async def test_record_when_it_alone_takes_too_long_then_it_is_tried_again(journal: Journal) -> None:
    sink = Sink()
    left = [3]

    def slow(records: Sequence[Record]) -> Exception | None:
        left[0] -= 1
        return DatabaseTooSlow("busy") if left[0] >= 0 else None

    sink.trouble = slow
    journal.append_final(trace_id(1), b"final")
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert len(sink.rows) == 1 and not sink.dead


async def test_dead_letter_when_the_answer_is_lost_then_the_charge_is_made_once(journal: Journal) -> None:
    sink, charges = Sink(), Charges()
    journal.append_final(trace_id(1), b"poison")
    lost = [2]

    def lose() -> None:
        if lost[0]:
            lost[0] -= 1
            raise DatabaseTooSlow("answer lost")

    sink.after_commit = lose
    async with running(journal, sink, charges) as writer:
        assert await writer.flush(5)
        assert writer.stats().dead_letters == 1
    assert charges.seen == [(FINAL, trace_id(1))]


@pytest.mark.parametrize(("failures", "is_charged"), [(2, True), (5, False)])
async def test_dead_letter_when_it_is_refused_for_an_unknown_reason_then_it_is_tried_again_and_not_lost(
    failures: int, is_charged: bool, journal: Journal
) -> None:
    sink, charges = Sink(), Charges()
    keep, left = sink.dead_letter, [failures]

    async def refuse(connection: Sink, record: Record, reason: str, *, is_charged: bool) -> bool:
        if left[0]:
            left[0] -= 1
            raise RaiseError("sk-secret")
        return await keep(connection, record, reason, is_charged=is_charged)

    sink.dead_letter = refuse  # type: ignore[method-assign]
    journal.append_final(trace_id(1), b"poison")
    async with running(journal, sink, charges) as writer:
        assert await writer.flush(5)
        assert (writer.stats().lost, writer.stats().dead_letters) == (0, 1)
    assert (sink.charged[FINAL, trace_id(1)], len(charges.seen)) == (is_charged, is_charged)


async def test_dead_letter_when_cancelled_then_nothing_is_half_done(journal: Journal) -> None:
    sink = Sink()

    async def never(*_: Any, **__: Any) -> bool:
        await asyncio.Event().wait()
        raise RecordRejected("unreachable")

    sink.dead_letter = never  # type: ignore[method-assign]
    journal.append_final(trace_id(1), b"poison")
    async with running(journal, sink) as writer:
        assert not await writer.flush(0.1)
    assert journal.depth == 1
