"""The writer brings every record to the database, whatever that does meanwhile."""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import DatabaseUnavailable
from proxy.journal.frames import Kind, Record
from proxy.journal.segments import Journal
from tests.journal.disk import largest_file, make_settings, trace_id
from tests.journal.sink import Sink, running


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, make_settings())
    journal.open()
    yield journal
    journal.close()


def fail_times(count: int, make: Callable[[], Exception]) -> Callable[[], None]:
    left = [count]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise make()

    return fail


async def test_records_when_appended_then_they_arrive_within_the_delay_in_one_transaction(journal: Journal) -> None:
    sink = Sink()
    async with running(journal, sink) as writer:
        await asyncio.sleep(0.01)
        for number in range(5):
            journal.append_intent(trace_id(number), b"intent")
            journal.append_final(trace_id(number), b"final")
            writer.notify()
        assert sink.rows == {}
        async with asyncio.timeout(5):
            while len(sink.rows) < 5:
                await asyncio.sleep(0.005)
        assert sink.applied == [5]
        assert set(sink.rows) == {(Kind.FINAL, trace_id(n)) for n in range(5)}


@pytest.mark.parametrize(
    "limits", [{"batch_records": 10}, {"batch_records": 1000, "batch_bytes": 500}], ids=["records", "bytes"]
)
async def test_batch_when_it_is_full_then_it_does_not_wait_for_the_deadline(
    journal: Journal, limits: dict[str, int]
) -> None:
    sink = Sink()
    async with running(journal, sink, batch_delay_ms=60_000, **limits) as writer:
        journal.append_final(trace_id(0), b"final")
        writer.notify()
        await asyncio.sleep(0.02)
        assert sink.transactions == 0
        for number in range(1, 10):
            journal.append_final(trace_id(number), bytes(50))
            writer.notify()
        async with asyncio.timeout(5):
            while not sink.transactions:
                await asyncio.sleep(0.005)


async def test_intents_when_nothing_else_comes_then_the_loop_rests_and_the_first_final_wakes_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read_batch = journal.read_batch
    monkeypatch.setattr(journal, "read_batch", lambda *limits: reads.append(1) or read_batch(*limits))
    sink = Sink()
    async with running(journal, sink, batch_delay_ms=1) as writer:
        journal.append_intent(trace_id(1), b"intent")
        writer.notify()
        await asyncio.sleep(0.05)
        assert reads == []
        begin = time.perf_counter()
        journal.append_final(trace_id(1), b"final")
        writer.notify()
        async with asyncio.timeout(5):
            while not sink.rows:
                await asyncio.sleep(0.001)
        assert time.perf_counter() - begin < 0.5
        assert reads == [1]


async def test_flush_when_records_wait_then_they_are_stored_at_once(journal: Journal) -> None:
    sink = Sink()
    async with running(journal, sink, batch_delay_ms=60_000, batch_records=7) as writer:
        assert await writer.flush(5)
        for number in range(100):
            journal.append_intent(trace_id(number), b"intent")
            journal.append_final(trace_id(number), b"final")
        writer.notify()
        await asyncio.sleep(0.01)
        assert await writer.flush(5)
        assert len(sink.rows) == 100
        assert (writer.stats().records, writer.stats().is_available) == (100, True)


async def test_flush_when_the_database_is_away_then_it_says_so_after_its_time(journal: Journal) -> None:
    sink = Sink()
    sink.is_up = False
    async with running(journal, sink) as writer:
        journal.append_final(trace_id(1), b"final")
        assert not await writer.flush(0.1)
        assert not writer.stats().is_available
        sink.is_up = True
        assert await writer.flush(5)
        assert writer.stats().is_available


async def test_flush_when_the_disk_holds_records_back_then_it_waits_for_them(journal: Journal) -> None:
    sink = Sink()
    async with running(journal, sink) as writer:
        with largest_file(0):
            journal.append_final(trace_id(1), b"final")
            assert not await writer.flush(0.05)
        assert await writer.flush(5)
        assert list(sink.rows) == [(Kind.FINAL, trace_id(1))]


async def test_records_when_the_database_is_away_for_a_while_then_none_is_lost_or_doubled(journal: Journal) -> None:
    sink = Sink()
    async with running(journal, sink, batch_records=10) as writer:
        for number in range(200):
            sink.is_up = number % 40 > 20
            journal.append_final(trace_id(number), b"final")
            writer.notify()
            await asyncio.sleep(0.001)
        sink.is_up = True
        assert await writer.flush(5)
        assert len(sink.rows) == 200
        assert (writer.stats().replayed, writer.stats().dead_letters) == (0, 0)
        assert writer.stats().unavailable > 0


async def test_pause_when_the_database_stays_away_then_it_grows_up_to_its_limit(journal: Journal) -> None:
    sink = Sink()
    sink.is_up = False
    journal.append_final(trace_id(1), b"final")
    async with running(journal, sink, retry_max_s=60.0, batch_delay_ms=1) as writer:
        await asyncio.sleep(0.4)
        # 0.1 s, 0.2 s, 0.4 s, each shortened by half at most.
        assert 2 <= writer.stats().unavailable <= 4


async def test_poison_when_in_a_batch_of_500_then_499_land_and_one_is_put_aside(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    for number in range(500):
        journal.append_final(trace_id(number), b"poison sk-secret" if number == 321 else b"final")
    async with running(journal, sink, batch_records=500) as writer:
        assert await writer.flush(10)
    assert len(sink.rows) == 499
    assert sink.dead == {(Kind.FINAL, trace_id(321)): "22P05"}
    assert sink.applied[0] == 500
    assert len(sink.applied) < 25
    assert (writer.stats().dead_letters, writer.stats().records) == (1, 499)
    assert "sk-secret" not in caplog.text


async def test_poison_when_not_even_the_dead_letter_takes_it_then_it_is_counted_and_the_rest_goes_on(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    sink.refuses_dead_letters = True
    journal.append_final(trace_id(1), b"poison sk-secret")
    journal.append_final(trace_id(2), b"final")
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.rows) == [(Kind.FINAL, trace_id(2))]
    assert (writer.stats().lost, writer.stats().dead_letters) == (1, 0)
    [message] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert vars(message)["trace_id"] == trace_id(1).hex()
    assert "sk-secret" not in caplog.text


async def test_dead_letter_when_the_database_goes_away_then_it_is_tried_again(journal: Journal) -> None:
    sink = Sink()
    journal.append_final(trace_id(1), b"poison")
    sink.before_commit = fail_times(3, lambda: DatabaseUnavailable("away"))
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.dead) == [(Kind.FINAL, trace_id(1))]
    assert writer.stats().unavailable == 3


async def test_commit_when_its_answer_is_lost_then_the_repeat_changes_nothing(journal: Journal) -> None:
    sink = Sink()
    for number in range(20):
        journal.append_final(trace_id(number), b"final")
    sink.after_commit = fail_times(2, lambda: DatabaseUnavailable("answer lost"))
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert len(sink.rows) == 20
    assert (writer.stats().records, writer.stats().replayed) == (20, 20)


async def test_appliers_when_in_a_row_then_each_gets_what_the_one_before_found_new(journal: Journal) -> None:
    class Totals:
        def __init__(self) -> None:
            self.seen: list[bytes] = []

        async def apply(self, connection: Any, records: Sequence[Record]) -> Sequence[Record]:
            self.seen += [record.trace_id for record in records]
            return records

    sink, totals = Sink(), Totals()
    for number in (1, 2, 1, 3):
        journal.append_final(trace_id(number), b"final")
        async with running(journal, sink, totals) as writer:
            assert await writer.flush(5)
    assert totals.seen == [trace_id(1), trace_id(2), trace_id(3)]


async def test_bug_when_it_hits_a_batch_then_nothing_is_lost_and_only_its_type_is_logged(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    sink.before_commit = fail_times(2, lambda: ZeroDivisionError("sk-secret"))
    journal.append_final(trace_id(1), b"final")
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.rows) == [(Kind.FINAL, trace_id(1))]
    assert writer.stats().unexpected == 2
    errors = [vars(record) for record in caplog.records if record.levelno == logging.ERROR]
    assert [error["error"] for error in errors] == ["ZeroDivisionError"] * 2
    assert "sk-secret" not in str(errors)


async def test_file_when_it_cannot_be_read_for_a_while_then_it_is_tried_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink()
    real = os.pread
    fail = fail_times(2, lambda: OSError(errno.EIO, "injected"))

    def pread(fd: int, length: int, at: int) -> bytes:
        fail()
        return real(fd, length, at)

    monkeypatch.setattr(os, "pread", pread)
    journal.append_final(trace_id(1), b"final")
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert list(sink.rows) == [(Kind.FINAL, trace_id(1))]
    assert writer.stats().unexpected == 2


async def test_batch_when_cancelled_in_the_middle_then_the_next_writer_stores_it(journal: Journal) -> None:
    sink = Sink()
    entered = asyncio.Event()

    class Stuck:
        async def apply(self, connection: Any, records: Sequence[Record]) -> Sequence[Record]:
            entered.set()
            await asyncio.Event().wait()
            return records

    journal.append_final(trace_id(1), b"final")
    async with running(journal, sink, Stuck()):
        await asyncio.wait_for(entered.wait(), 5)
    assert (sink.rows, journal.depth) == ({}, 1)
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert len(sink.rows) == 1


async def test_damage_when_it_is_all_that_is_left_then_the_writer_passes_it(journal: Journal, tmp_path: Path) -> None:
    sink = Sink()
    journal.append_final(trace_id(1), b"final")
    [path] = tmp_path.glob("*.journal")
    path.write_bytes(bytes(path.stat().st_size))
    async with running(journal, sink) as writer:
        assert await writer.flush(5)
    assert (sink.transactions, journal.depth, journal.stats().damaged_frames) == (0, 0, 1)


async def test_backlog_when_replayed_then_the_event_loop_stays_responsive(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "large", make_settings(segment_bytes=1 << 24))
    journal.open()
    body = bytes(1500)
    for number in range(20_000):
        journal.append_intent(trace_id(number), body)
        journal.append_final(trace_id(number), body)
    waits: list[float] = []

    async def watch() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - begin - 0.001)

    sink = Sink()
    watcher = asyncio.create_task(watch())
    begin = time.perf_counter()
    async with running(journal, sink, batch_records=500) as writer:
        assert await writer.flush(30)
    watcher.cancel()
    assert len(sink.rows) == 20_000
    assert time.perf_counter() - begin < 10
    assert sorted(waits)[len(waits) // 2] < 0.05
    journal.close()
