"""What the journal promises to the pipeline: order, space, recovery, exclusive use."""

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import JournalUnavailable
from proxy.journal.chain import KEPT
from proxy.journal.frames import MAX_BODY_BYTES, Kind
from proxy.journal.segment import START
from proxy.journal.segments import FINAL_RESERVE_BYTES, Journal
from tests.journal.disk import SEGMENT_BYTES, drain, largest_file, make_settings, opened, segment_files, trace_id

BODY = b'{"x":"' + b"y" * 993 + b'"}'


def test_records_when_read_back_then_finals_and_contents_come_in_order_without_intents(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(3):
            journal.append_intent(trace_id(number), b"intent")
            journal.append_content(trace_id(number), b"content")
            journal.append_final(trace_id(number), b"final")

        batch = journal.read_batch(100, 1 << 20)

        kinds = [Kind.CONTENT, Kind.FINAL] * 3
        assert [(r.kind, r.trace_id) for r in batch.records] == [(k, trace_id(i // 2)) for i, k in enumerate(kinds)]
        assert [r.body for r in batch.records] == [b"content", b"final"] * 3


def test_batch_when_not_committed_then_it_comes_again_and_after_the_commit_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(5):
            journal.append_final(trace_id(number), b"final")

        first = journal.read_batch(2, 1 << 20)
        assert journal.read_batch(2, 1 << 20) == first
        journal.commit(first)

        assert [r.trace_id for r in drain(journal, 2)] == [trace_id(n) for n in (2, 3, 4)]
        assert journal.read_batch(2, 1 << 20).records == ()


def test_batch_when_there_is_nothing_then_it_is_empty_and_its_commit_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        batch = journal.read_batch(10, 1 << 20)
        journal.commit(batch)
        assert (batch.records, batch.end, journal.cursor) == ((), START, START)


def test_batch_when_bytes_are_limited_then_a_single_larger_record_comes_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number, size in enumerate([10, 10, 5000, 10]):
            journal.append_final(trace_id(number), bytes(size))

        sizes = []
        while journal.depth:
            batch = journal.read_batch(100, 100)
            sizes.append([len(r.body) for r in batch.records])
            journal.commit(batch)

        assert sizes == [[10, 10], [5000], [10]]


def test_body_when_64_mib_then_it_is_kept_and_above_it_is_counted_as_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_final(trace_id(1), bytes(MAX_BODY_BYTES))
        journal.append_final(trace_id(2), bytes(MAX_BODY_BYTES + 1))

        assert [len(r.body) for r in drain(journal)] == [MAX_BODY_BYTES]
        assert journal.stats().drops == {("final", "size"): 1}


def test_intent_and_content_when_above_64_mib_then_they_are_refused_and_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(JournalUnavailable):
            journal.append_intent(trace_id(1), bytes(MAX_BODY_BYTES + 1))
        journal.append_content(trace_id(1), bytes(MAX_BODY_BYTES + 1))

        assert (journal.stats().refused, journal.stats().drops) == (1, {("content", "size"): 1})
        assert segment_files(tmp_path) == []


def test_stats_when_records_wait_then_depth_age_and_open_intents_are_told(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(1), b"intent")
        journal.append_intent(trace_id(2), b"intent")
        journal.append_final(trace_id(1), b"final")
        time.sleep(0.02)

        stats = journal.stats()
        assert (stats.records, stats.open_intents, stats.healthy) == (1, 1, True)
        assert 0.02 <= stats.oldest_s < 5
        assert stats.bytes == sum(path.stat().st_size for path in segment_files(tmp_path))

        drain(journal)
        assert (journal.stats().records, journal.stats().oldest_s, journal.unread_bytes) == (0, 0.0, 0)


def test_segments_when_committed_then_they_are_deleted_and_the_disk_is_free(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(400):
            journal.append_intent(trace_id(number), BODY)
            journal.append_final(trace_id(number), BODY)
        assert len(segment_files(tmp_path)) > 10
        assert all(path.stat().st_size <= SEGMENT_BYTES for path in segment_files(tmp_path))

        assert len(drain(journal)) == 400

        assert len(segment_files(tmp_path)) == 1
        assert journal.stats().bytes <= SEGMENT_BYTES


def test_segment_when_a_final_in_a_later_one_is_not_committed_then_it_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(0), BODY)
        for number in range(1, 100):
            journal.append_final(trace_id(number), BODY)
        journal.append_final(trace_id(0), BODY)
        oldest = segment_files(tmp_path)[0]

        while journal.depth > 1:
            journal.commit(journal.read_batch(1, 1 << 20))
        assert oldest.exists()

        drain(journal)
        assert not oldest.exists()


def test_intent_when_it_stays_open_for_long_then_it_survives_and_holds_no_disk(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_intent(trace_id(0), b"long stream")
        for number in range(1, 1000):
            journal.append_final(trace_id(number), BODY)
            if number % 50 == 0:
                drain(journal)
        assert len(segment_files(tmp_path)) <= 2

    again = Journal(tmp_path, make_settings())
    assert [r.body for r in again.open().orphans] == [b"long stream"]
    again.append_final(trace_id(0), b"final")
    again.close()
    with opened(tmp_path) as last:
        assert last.stats().open_intents == 0


def test_intents_when_without_final_then_the_next_process_gets_them_as_orphans(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(4):
            journal.append_intent(trace_id(number), b"intent %d" % number)
        journal.append_final(trace_id(1), b"final")

    again = Journal(tmp_path, make_settings())
    recovery = again.open()
    assert sorted(r.body for r in recovery.orphans) == [b"intent 0", b"intent 2", b"intent 3"]
    assert (recovery.backlog, recovery.damaged_frames) == (1, 0)
    for orphan in recovery.orphans:
        again.append_final(orphan.trace_id, b"interrupted")
    assert len(drain(again)) == 4
    again.close()

    last = Journal(tmp_path, make_settings())
    assert (last.open().orphans, last.depth) == ((), 0)
    last.close()


def test_restart_when_a_part_was_committed_then_only_the_rest_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(10):
            journal.append_final(trace_id(number), b"final")
        journal.commit(journal.read_batch(6, 1 << 20))

    with opened(tmp_path) as again:
        assert again.depth == 4
        assert again.stats().oldest_s >= 0
        again.append_final(trace_id(10), b"final")
        assert [r.trace_id for r in drain(again)] == [trace_id(n) for n in range(6, 11)]


@pytest.mark.parametrize(
    "cursor", [b"", b"short", bytes(24), os.urandom(64)], ids=["empty", "short", "zeros", "garbage"]
)
def test_cursor_when_it_cannot_be_trusted_then_everything_is_replayed(tmp_path: Path, cursor: bytes) -> None:
    with opened(tmp_path) as journal:
        for number in range(5):
            journal.append_final(trace_id(number), b"final")
        journal.commit(journal.read_batch(3, 1 << 20))
    (tmp_path / "cursor").write_bytes(cursor)

    with opened(tmp_path) as again:
        assert len(drain(again)) == 5


def test_cursor_when_it_is_ahead_of_all_files_then_they_are_replayed(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_final(trace_id(1), b"old")
    kept = segment_files(tmp_path)[0]
    saved = kept.read_bytes()
    for _ in range(3):
        with opened(tmp_path) as journal:
            journal.append_final(trace_id(2), b"new")
            drain(journal)
    for path in segment_files(tmp_path):
        path.unlink()
    kept.write_bytes(saved)

    with opened(tmp_path) as again:
        assert [r.body for r in drain(again)] == [b"old"]
        assert again.cursor > START


def test_cursor_file_when_it_cannot_be_written_then_only_the_replay_is_longer(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append_final(trace_id(1), b"final")
        with largest_file(0):
            drain(journal)
        assert journal.depth == 0


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_when_swapped_or_copied_then_nothing_is_lost_and_no_orphan_invented(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    with opened(directory) as journal:
        for number in range(150):
            journal.append_intent(trace_id(number), BODY)
            if number >= 30:
                journal.append_final(trace_id(number - 30), BODY)
    files = segment_files(directory)
    contents = [path.read_bytes() for path in files]
    order = data.draw(st.permutations(range(len(files))))
    for path, index in zip(files, order, strict=True):
        path.write_bytes(contents[index])
    copied = data.draw(st.integers(0, len(files) - 1))
    files[0].with_name(f"{len(files) + 1:016d}.journal").write_bytes(contents[copied])

    again = Journal(directory, make_settings())
    recovery = again.open()
    found = {r.trace_id for r in drain(again)}
    again.close()

    assert {r.trace_id for r in recovery.orphans} == {trace_id(n) for n in range(120, 150)}
    assert found == {trace_id(n) for n in range(120)}
    assert recovery.damaged_frames == 0


DAMAGED = "a part of the journal is damaged and was skipped"


def test_damage_when_found_at_the_start_then_it_is_told_once_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as journal:
        for number in range(10):
            journal.append_final(trace_id(number), b"final %d" % number)
    path = segment_files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"final 4")] ^= 1
    path.write_bytes(data + bytes(100))

    with opened(tmp_path) as again:
        assert [r.trace_id for r in drain(again)] == [trace_id(n) for n in range(10) if n != 4]
        assert (again.stats().damaged_frames, again.stats().records) == (2, 0)
    assert caplog.messages == [DAMAGED]
    assert (caplog.records[0].frames, "final" in caplog.text) == (2, False)  # type: ignore[attr-defined]


def test_damage_when_it_happens_while_running_then_it_is_told_and_nothing_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as journal:
        for number in range(10):
            journal.append_final(trace_id(number), b"final %d" % number)
        path = segment_files(tmp_path)[0]
        data = bytearray(path.read_bytes())
        data[data.index(b"final 4")] ^= 1
        path.write_bytes(data)

        assert [r.trace_id for r in drain(journal, 2)] == [trace_id(n) for n in range(10) if n != 4]
        assert (journal.stats().damaged_frames, journal.stats().records) == (1, 0)
    assert caplog.messages == [DAMAGED]


def test_segment_when_it_is_taken_away_and_too_old_to_be_kept_open_then_it_is_counted_as_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(KEPT + 2):
            journal.append_final(trace_id(number), b"x" * 60_000)
        segment_files(tmp_path)[0].unlink()

        assert len(drain(journal)) == KEPT + 1
        assert journal.stats().damaged_frames == 1


def test_space_when_short_then_content_goes_first_then_intents_are_refused_and_finals_never(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 20) as journal:
        admitted = []
        for number in range(2000):
            try:
                journal.append_intent(trace_id(number), BODY)
            except JournalUnavailable as error:
                assert error.retry_after_s
                break
            admitted.append(trace_id(number))
            if number >= 50:
                journal.append_content(trace_id(number), BODY)
                journal.append_final(trace_id(number - 50), BODY)
        before = journal.stats()
        for open_id in admitted[-50:]:
            journal.append_final(open_id, BODY)
        journal.append_content(trace_id(1), BODY)
        stats = journal.stats()

        assert before.bytes < (1 << 20) - 50 * FINAL_RESERVE_BYTES
        assert (stats.refused, stats.open_intents, stats.healthy) == (1, 0, True)
        kept = [r.trace_id for r in drain(journal) if r.kind is Kind.FINAL]
        assert sorted(kept) == sorted(admitted)
        journal.append_intent(trace_id(5000), BODY)


def test_content_when_above_90_percent_then_it_is_dropped_and_counted(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 20) as journal:
        for number in range(1000):
            journal.append_content(trace_id(number), BODY)
        stats = journal.stats()

        assert (1 << 20) * 0.88 < stats.bytes <= (1 << 20) * 0.9
        assert stats.drops == {("content", "space"): 1000 - stats.records}
        journal.append_intent(trace_id(1), BODY)


def test_space_when_used_up_and_serving_goes_on_then_lost_intents_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 20, on_full="serve") as journal:
        for number in range(1000):
            journal.append_intent(trace_id(number), BODY)
        stats = journal.stats()

        assert stats.drops == {("intent", "space"): 1000 - stats.open_intents}
        assert stats.refused == 0


def test_directory_when_used_by_another_then_the_second_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    second = Journal(tmp_path, make_settings())
    with opened(tmp_path):
        with pytest.raises(JournalUnavailable, match=r"in use by another process.*SIDEGATE_DATA_DIR"):
            second.open()
    second.open()
    second.close()


def test_directory_when_it_cannot_be_made_then_the_error_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")

    with pytest.raises(JournalUnavailable, match="Not a directory"):
        Journal(tmp_path / "file" / "journal", make_settings()).open()


def test_directory_when_it_cannot_be_read_then_it_is_refused_and_left_free(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001.journal").mkdir()
    journal = Journal(tmp_path, make_settings())

    with pytest.raises(JournalUnavailable, match="Is a directory"):
        journal.open()

    (tmp_path / "0000000000000001.journal").rmdir()
    journal.open()
    journal.close()


def test_files_when_created_then_only_the_owner_can_read_them(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        journal.append_final(trace_id(1), b"final")

        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_journal_when_closed_then_nothing_is_recorded_and_all_of_it_is_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        pass
    journal.close()

    with pytest.raises(JournalUnavailable):
        journal.append_intent(trace_id(1), b"intent")
    journal.append_final(trace_id(1), b"final")
    journal.append_content(trace_id(1), b"content")

    assert journal.stats().drops == {("final", "closed"): 1, ("content", "closed"): 1}
    assert segment_files(tmp_path) == []
