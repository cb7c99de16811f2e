"""What happens when somebody removes the journal's files while it runs."""

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest

from proxy.errors import JournalUnavailable
from tests.journal.disk import drain, opened, segment_files, trace_id


def removed(directory: Path) -> None:
    shutil.rmtree(directory)


def moved(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def file_removed(directory: Path) -> None:
    segment_files(directory)[-1].unlink()


def replaced(directory: Path) -> None:
    path = segment_files(directory)[-1]
    path.unlink()
    path.write_bytes(b"something else")


@pytest.mark.parametrize("loss", [removed, moved, file_removed, replaced])
def test_journal_when_its_files_are_taken_away_then_the_latest_is_restored(loss, tmp_path, caplog):
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        journal.append_intent(trace_id(0), b"open")
        for number in range(3):
            journal.append_final(trace_id(number), b"x" * 100)
        loss(directory)
        journal.append_final(trace_id(3), b"x")
        assert [record.trace_id for record in journal.read_batch(10, 1 << 20).records] == [
            trace_id(n) for n in range(4)
        ]
        with caplog.at_level(logging.ERROR):
            journal.tend()
            journal.tend()
        assert [record.getMessage() for record in caplog.records] == [
            "the journal's files were removed while it was running; the latest was restored"
        ]
        journal.append_final(trace_id(4), b"x")
        first = journal.read_batch(2, 1 << 20)
        journal.commit(first)
        with pytest.raises(JournalUnavailable, match="in use by another process"):
            opened(directory).__enter__()
        assert journal.stats().healthy
    with opened(directory) as again:
        assert [record.trace_id for record in (*first.records, *drain(again))] == [trace_id(n) for n in range(5)]
        assert again.stats().damaged_frames == 0


@pytest.mark.parametrize("loss", [removed, moved, file_removed, replaced])
@pytest.mark.parametrize("is_killed", [False, True], ids=["read on", "killed later"])
def test_journal_when_a_new_file_begins_before_the_loss_is_noticed_then_nothing_is_lost(loss, is_killed, tmp_path):
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        for number in range(6):
            journal.append_intent(trace_id(number), b"open")
        journal.append_final(trace_id(0), b"x" * 40_000)
        loss(directory)
        for number in range(1, 6):
            journal.append_final(trace_id(number), b"x" * 40_000)
        stored = []
        if is_killed and loss is not replaced:
            for _ in range(3):
                journal.tend()
        else:
            stored = drain(journal)
        assert len(stored) + journal.depth + journal.held == 6
        if is_killed:
            shutil.copytree(directory, tmp_path / "as it was")
        else:
            journal.tend()
            stored += drain(journal)
    with opened(tmp_path / "as it was" if is_killed else directory) as again:
        stored += drain(again)
        assert sorted({record.trace_id for record in stored}) == [trace_id(n) for n in range(6)]
        assert again.stats().damaged_frames == 0


def test_journal_when_files_of_an_outage_are_removed_then_they_are_read_on_and_restored_one_by_one(tmp_path, caplog):
    earlier = b"x" * 40_000
    with opened(tmp_path) as journal:
        for number in range(3):
            journal.append_final(trace_id(number), earlier)
    with opened(tmp_path) as journal:
        for number in range(3, 6):
            journal.append_final(trace_id(number), earlier)
        files = segment_files(tmp_path)
        removed(tmp_path)
        for _ in range(7):
            journal.tend()
        assert segment_files(tmp_path) == files
        assert journal.stats().healthy
        assert sum("it was restored" in record.getMessage() for record in caplog.records) == 5
        descriptors = len(os.listdir("/proc/self/fd"))
        assert [record.trace_id for record in drain(journal)] == [trace_id(n) for n in range(6)]
        assert len(os.listdir("/proc/self/fd")) <= descriptors - 5, "what is stored is closed"
        assert journal.stats().damaged_frames == 0


def test_journal_when_it_closes_after_a_loss_then_the_files_are_there_at_the_next_start(tmp_path):
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        for number in range(3):
            journal.append_final(trace_id(number), b"x" * 40_000)
        removed(directory)
    with opened(directory) as again:
        assert [record.trace_id for record in drain(again)] == [trace_id(n) for n in range(3)]


def test_journal_when_the_directory_goes_before_the_first_record_then_it_comes_back(tmp_path):
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        removed(directory)
        with pytest.raises(JournalUnavailable):
            journal.append_intent(trace_id(0), b"x")
        journal.tend()
        journal.append_intent(trace_id(0), b"x")
        journal.append_final(trace_id(0), b"x")
        assert len(drain(journal)) == 1


def test_journal_when_it_cannot_be_restored_then_no_request_is_admitted_until_it_can(tmp_path, caplog):
    directory = tmp_path / "parent" / "journal"
    with opened(directory) as journal:
        journal.append_intent(trace_id(0), b"x")
        removed(directory.parent)
        directory.parent.write_bytes(b"in the way")
        for _ in range(2):
            journal.tend()
        assert [record.getMessage() for record in caplog.records] == [
            "the journal's files were removed and cannot be restored"
        ]
        assert not journal.stats().healthy
        with pytest.raises(JournalUnavailable):
            journal.append_intent(trace_id(1), b"x")
        journal.append_final(trace_id(0), b"x")  # its request was admitted
        directory.parent.unlink()
        journal.tend()
        journal.append_intent(trace_id(1), b"x")
        assert journal.stats().healthy
        assert [record.trace_id for record in drain(journal)] == [trace_id(0)]


def test_journal_when_its_directory_cannot_be_listed_then_no_file_is_called_removed(tmp_path, caplog, monkeypatch):
    def listed(_path):
        raise OSError(errno.EMFILE, "Too many open files")

    with opened(tmp_path) as journal:
        journal.append_final(trace_id(0), b"x")
        with monkeypatch.context() as patched:
            patched.setattr(os, "listdir", listed)
            journal.tend()
        assert not caplog.records
        assert journal.stats().healthy
        assert len(drain(journal)) == 1


def test_journal_when_the_file_was_emptied_before_it_was_removed_then_the_rest_counts_as_damage(tmp_path):
    with opened(tmp_path) as journal:
        journal.append_final(trace_id(0), b"x" * 100)
        path = segment_files(tmp_path)[-1]
        os.truncate(path, 50)
        path.unlink()
        journal.tend()
        journal.append_final(trace_id(1), b"x" * 100)
        drain(journal)
        assert journal.stats().damaged_frames == 1


def test_journal_when_it_cannot_tell_where_its_file_is_then_it_goes_on(tmp_path):
    directory = tmp_path / "journal"
    with opened(directory) as journal:
        journal.append_final(trace_id(0), b"x")
        moved(directory)
        directory.symlink_to(directory)
        journal.tend()
        journal.append_intent(trace_id(1), b"x")
        directory.unlink()
        (tmp_path / "elsewhere").rename(directory)
        assert len(drain(journal)) == 1
