"""Full and failing disks: what was admitted stays, what cannot be kept is refused or counted."""

import errno
import os
import time
from pathlib import Path

import pytest

from proxy.errors import JournalUnavailable
from proxy.journal.frames import Kind
from proxy.journal.segments import Journal
from tests.journal.disk import Disk, drain, largest_file, make_settings, opened, segment_files, trace_id, wait_until

BODY = b'{"x":"' + b"y" * 993 + b'"}'


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_final_when_the_disk_is_full_then_it_waits_and_is_written_once_there_is_room(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(3):
            journal.append_intent(trace_id(number), b"intent")
        journal.append_final(trace_id(0), BODY)
        with largest_file(500):
            for number in (1, 2):
                journal.append_final(trace_id(number), BODY)
            journal.append_content(trace_id(1), BODY)
            with pytest.raises(JournalUnavailable):
                journal.append_intent(trace_id(9), b"intent")
            journal.tend()
            assert (journal.stats().held, journal.stats().healthy) == (2, False)

        journal.tend()

        assert (journal.stats().held, journal.stats().healthy, journal.stats().open_intents) == (0, True, 0)
        assert journal.stats().drops == {("content", "disk"): 1}
        assert (journal.stats().accepted, journal.stats().finals, journal.stats().records) == (3, 3, 3)
        assert [r.trace_id for r in drain(journal)] == [trace_id(n) for n in range(3)]
        assert journal.stats().damaged_frames == 0


def test_write_when_cut_short_then_no_torn_frame_is_left_for_the_next_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path, make_settings())
    journal.open()
    journal.append_final(trace_id(1), BODY)
    with largest_file(1500), pytest.raises(JournalUnavailable):
        journal.append_intent(trace_id(2), BODY)
    journal.close()

    again = Journal(tmp_path, make_settings())
    recovery = again.open()
    assert (recovery.orphans, recovery.backlog, recovery.damaged_bytes) == ((), 1, 0)
    again.close()


def test_write_when_cut_short_and_the_tail_stays_then_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "injected")

    with opened(tmp_path) as journal:
        with monkeypatch.context() as patch, largest_file(500):
            patch.setattr(os, "ftruncate", broken)
            journal.append_final(trace_id(1), BODY)
        journal.append_final(trace_id(2), BODY)
        assert [r.trace_id for r in drain(journal)] == [trace_id(1), trace_id(2)]


def test_final_when_nothing_can_be_written_at_all_then_no_file_is_left_per_try(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(1), b"intent")
        with largest_file(0):
            journal.append_final(trace_id(1), b"final")
            for _ in range(50):
                journal.tend()
        assert len(segment_files(tmp_path)) == 2


def test_file_when_it_cannot_be_created_then_finals_wait_for_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.EROFS, "injected")
        return real(path, flags, *rest)  # type: ignore[arg-type]

    with opened(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            journal.append_final(trace_id(1), b"final")
            assert journal.held == 1
        journal.tend()
        assert [r.trace_id for r in drain(journal)] == [trace_id(1)]


def test_finals_when_they_have_no_intent_then_memory_holds_a_bounded_number(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with largest_file(0):
            for number in range(100):
                journal.append_final(trace_id(number), BODY)
        held = journal.held
        assert 60 <= held <= 70
        assert journal.stats().drops == {("final", "disk"): 100 - held}
        assert (journal.stats().accepted, journal.stats().finals) == (held, held)
        journal.tend()
        assert len(drain(journal)) == held


def test_requests_when_the_disk_is_full_and_serving_goes_on_then_lost_intents_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, on_full="serve") as journal:
        with largest_file(0):
            journal.append_intent(trace_id(1), b"intent")
            journal.append_final(trace_id(1), b"final")
        journal.tend()
        assert [r.body for r in drain(journal)] == [b"final"]
        assert journal.stats().drops == {("intent", "disk"): 1}


def test_journal_when_closed_while_the_disk_is_full_then_what_it_held_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, make_settings())
    journal.open()
    with largest_file(0):
        journal.append_final(trace_id(1), b"final")
        journal.close()
    assert journal.stats().drops == {("final", "disk"): 1}


def test_old_segments_when_the_disk_is_full_then_they_make_room_for_the_intents_they_hold(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(0), b"long stream")
        for number in range(1, 200):
            journal.append_final(trace_id(number), BODY)
        files = segment_files(tmp_path)
        with largest_file(0):
            drain(journal)
            assert not files[0].exists()
            assert (journal.held, journal.stats().open_intents) == (1, 1)
        journal.append_final(trace_id(0), b"final")
        assert [r.body for r in drain(journal)] == [b"final"]


def test_segment_when_the_disk_is_full_and_holds_no_other_then_it_makes_room_for_what_is_held(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(3):
            journal.append_intent(trace_id(number), b"intent")
        journal.append_final(trace_id(0), BODY)
        files = segment_files(tmp_path)
        with largest_file(500):
            journal.append_final(trace_id(1), BODY)
            drain(journal)
            assert not files[0].exists()
        journal.tend()
        assert (journal.held, journal.stats().open_intents, journal.stats().healthy) == (0, 1, True)
        assert [r.trace_id for r in drain(journal)] == [trace_id(1)]
        journal.append_final(trace_id(2), BODY)
        assert [r.trace_id for r in drain(journal)] == [trace_id(2)]
    again = Journal(tmp_path, make_settings())
    assert again.open().orphans == ()
    again.close()


def test_old_segments_when_the_disk_is_broken_then_they_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "injected")

    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(0), b"long stream")
        for number in range(1, 200):
            journal.append_final(trace_id(number), BODY)
        files = segment_files(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", broken)
            drain(journal)
        assert files[0].exists()
        assert not journal.stats().healthy
        journal.append_final(trace_id(200), BODY)
        drain(journal)
        assert not files[0].exists()
        assert journal.stats().healthy


def test_sync_when_records_come_fast_then_it_is_grouped_and_appends_do_not_wait(tmp_path: Path, disk: Disk) -> None:
    disk.delay_s = 0.3
    with opened(tmp_path, fsync="interval") as journal:
        slowest = 0.0
        for number in range(200):
            begin = time.perf_counter()
            journal.append_final(trace_id(number), BODY)
            slowest = max(slowest, time.perf_counter() - begin)
        assert slowest < 0.2
        wait_until(lambda: disk.syncs >= 1)
        assert disk.syncs < 20
        disk.delay_s = 0.0


def test_sync_when_records_come_seldom_then_each_is_synced(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="interval") as journal:
        for number in range(5):
            journal.append_final(trace_id(number), BODY)
            wait_until(lambda expected=number + 1: disk.syncs == expected)


def test_sync_when_a_new_segment_gets_one_record_then_both_are_synced(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=50) as journal:
        while len(segment_files(tmp_path)) < 2:
            journal.append_final(trace_id(1), BODY)
        wait_until(lambda: disk.syncs == 2)


def test_sync_when_always_then_it_is_done_before_the_append_returns(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="always") as journal:
        for number in range(3):
            journal.append_final(trace_id(number), BODY)
            assert disk.syncs == number + 1


def test_sync_when_nothing_was_written_then_the_journal_closes_without_one(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="interval"):
        pass
    assert disk.syncs == 0


def test_sync_when_never_then_it_is_not_done(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="never") as journal:
        journal.append_final(trace_id(1), BODY)
    assert disk.syncs == 0


@pytest.mark.parametrize("mode", ["interval", "always"])
def test_sync_when_it_fails_once_then_the_unsynced_records_are_written_to_a_new_segment(
    tmp_path: Path, disk: Disk, mode: str
) -> None:
    with opened(tmp_path, fsync=mode) as journal:
        journal.append_intent(trace_id(1), b"intent 1")
        journal.append_final(trace_id(0), b"final 0")
        wait_until(lambda: disk.syncs >= 1)
        disk.fails = 1
        journal.append_intent(trace_id(2), b"intent 2")
        journal.append_final(trace_id(1), b"final 1")
        journal.append_content(trace_id(1), b"content 1")
        wait_until(lambda: journal.tend() or len(segment_files(tmp_path)) == 2)
        wait_until(lambda: journal.stats().healthy)

        assert journal.stats().records == 3
        assert [r.body for r in drain(journal)] == [b"final 0", b"final 1", b"content 1"]
        wait_until(lambda: journal.tend() or len(segment_files(tmp_path)) == 1)

    again = Journal(tmp_path, make_settings())
    recovery = again.open()
    assert ([r.body for r in recovery.orphans], recovery.backlog) == ([b"intent 2"], 0)
    again.close()


def test_sync_when_it_fails_behind_the_cursor_then_nothing_committed_comes_again(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=200) as journal:
        disk.fails = 1
        journal.append_intent(trace_id(1), b"intent")
        for number in range(10, 14):
            journal.append_final(trace_id(number), b"final")
        journal.commit(journal.read_batch(2, 1 << 20))
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()

        assert journal.depth == 2
        assert [r.trace_id for r in drain(journal)] == [trace_id(12), trace_id(13)]
        assert journal.stats().open_intents == 1


@pytest.mark.parametrize("is_deleted", [True, False])
def test_sync_when_it_fails_while_a_batch_is_on_its_way_then_what_comes_again_is_accounted_for(
    tmp_path: Path, disk: Disk, is_deleted: bool
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=50) as journal:
        if not is_deleted:
            journal.append_final(trace_id(9), b"final")
            wait_until(lambda: all(segment.synced for segment in journal._log.chain))
        disk.fails = 1
        for number in range(4):
            journal.append_final(trace_id(number), b"final")
        batch = journal.read_batch(3, 1 << 20)
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()

        journal.commit(batch)
        landed = len(batch.records)
        assert journal.stats().accepted == landed + journal.stats().records
        assert journal.stats().accepted == landed + len(drain(journal))


def test_sync_when_it_fails_on_a_segment_that_is_committed_then_only_its_open_intents_move(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=300) as journal:
        disk.fails = 1
        journal.append_intent(trace_id(0), b"intent")
        for number in range(1, 150):
            journal.append_final(trace_id(number), BODY)
        while journal.depth > 5:
            journal.commit(journal.read_batch(5, 1 << 20))
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()
        assert len({r.trace_id for r in drain(journal)}) <= 10
        journal.append_final(trace_id(0), b"final")
        assert [r.body for r in drain(journal)] == [b"final"]


def test_sync_when_it_keeps_failing_then_intents_are_refused_until_it_works_again(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="always") as journal:
        journal.append_intent(trace_id(1), b"intent 1")
        disk.fails = 3
        journal.append_final(trace_id(0), b"final 0")
        with pytest.raises(JournalUnavailable):
            journal.append_intent(trace_id(2), b"intent 2")
        journal.append_final(trace_id(1), b"final 1")
        assert not journal.stats().healthy

        wait_until(lambda: journal.tend() or journal.stats().healthy)

        journal.append_intent(trace_id(3), b"intent 3")
        assert sorted(r.body for r in drain(journal)) == [b"final 0", b"final 1"]


def test_sync_when_it_fails_on_an_older_segment_then_its_records_move_to_the_active_one(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=300) as journal:
        disk.passes, disk.fails = 1, 1
        for number in range(100):
            journal.append_final(trace_id(number), BODY)
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()
        assert not (tmp_path / f"{1:016d}.journal").exists()
        assert sorted(r.trace_id for r in drain(journal)) == [trace_id(n) for n in range(100)]


def test_sync_when_it_failed_twice_and_all_is_committed_then_the_next_intent_tries_the_disk(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=20) as journal:
        disk.fails = 2
        journal.append_final(trace_id(1), b"final")
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()
        wait_until(lambda: journal._log.sync_is_broken)
        with pytest.raises(JournalUnavailable):
            journal.append_intent(trace_id(2), b"intent")
        drain(journal)
        journal.tend()

        journal.append_intent(trace_id(3), b"intent")
        wait_until(lambda: journal.stats().healthy)


def test_sync_when_it_keeps_failing_and_serving_goes_on_then_intents_are_still_written(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="always", on_full="serve") as journal:
        disk.fails = 2
        journal.append_final(trace_id(0), b"final 0")
        journal.append_intent(trace_id(2), b"intent 2")
        assert journal.stats().open_intents == 1
        assert journal.stats().drops == {}


def test_rewrite_when_the_disk_is_full_too_then_the_records_wait_and_no_segment_goes(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=100) as journal:
        journal.append_intent(trace_id(1), b"intent 1")
        disk.fails = 1
        journal.append_final(trace_id(1), b"final 1")
        wait_until(lambda: not journal.stats().healthy)
        with largest_file(0):
            journal.tend()
            assert journal.held >= 1
            assert journal.read_batch(10, 1000).records == ()
            assert len(segment_files(tmp_path)) == 2
        journal.tend()
        assert [r.body for r in drain(journal)] == [b"final 1"]


def test_intent_when_its_final_in_a_later_segment_is_lost_by_the_disk_then_its_segment_stays_until_that_is_stored(
    tmp_path: Path, disk: Disk
) -> None:
    with opened(tmp_path, fsync="interval", fsync_interval_ms=50) as journal:
        journal.append_intent(trace_id(0), b"intent")
        while len(segment_files(tmp_path)) < 2:
            journal.append_final(trace_id(1), BODY)
        wait_until(lambda: disk.syncs == 2)
        oldest, active = segment_files(tmp_path)
        disk.fails = 1
        journal.append_final(trace_id(2), b"final")
        journal.append_final(trace_id(0), b"final")
        wait_until(lambda: not journal.stats().healthy)
        with largest_file(0):
            journal.tend()
            assert journal.held == 2
            assert oldest.exists()
        journal.tend()
        while journal.depth > 1:
            journal.commit(journal.read_batch(journal.depth - 1, 1 << 20))
        assert oldest.exists()
        assert [r.body for r in drain(journal)] == [b"final"]
        assert not oldest.exists()
        assert not active.exists()


def test_moved_intent_when_its_new_place_is_not_synced_then_the_old_segment_stays(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path, fsync="interval") as journal:
        journal.append_intent(trace_id(0), b"long stream")
        for number in range(1, 150):
            journal.append_final(trace_id(number), BODY)
        wait_until(lambda: disk.syncs >= 3)
        oldest = segment_files(tmp_path)[0]
        disk.delay_s = 0.2
        drain(journal)
        assert oldest.exists()
        disk.fails = 1
        wait_until(lambda: not journal.stats().healthy)
        with largest_file(0):
            journal.tend()
            assert oldest.exists()
        disk.delay_s = 0.0
        wait_until(lambda: journal.tend() or not oldest.exists())
        journal.append_final(trace_id(0), b"final")
        assert [(r.kind, r.body) for r in drain(journal)] == [(Kind.FINAL, b"final")]


def test_unsynced_records_when_they_cannot_be_read_back_then_they_stay_for_the_reader(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, length: int, at: int) -> bytes:
        raise OSError(errno.EIO, "injected")

    with opened(tmp_path, fsync="interval", fsync_interval_ms=50) as journal:
        disk.fails = 1
        journal.append_final(trace_id(1), b"final")
        wait_until(lambda: not journal.stats().healthy)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", broken)
            journal.tend()
            with pytest.raises(OSError, match="injected"):
                journal.read_batch(10, 1000)
        assert [r.body for r in drain(journal)] == [b"final"]


def test_dead_bytes_when_they_cannot_be_given_back_then_they_are_counted_as_space(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: object, length: int) -> None:
        raise OSError(errno.EIO, "injected")

    with opened(tmp_path, fsync="interval", fsync_interval_ms=50) as journal:
        monkeypatch.setattr(os, "truncate", broken)
        disk.fails = 1
        journal.append_final(trace_id(1), b"final")
        wait_until(lambda: not journal.stats().healthy)
        journal.tend()
        assert journal.stats().bytes == sum(path.stat().st_size for path in segment_files(tmp_path))
