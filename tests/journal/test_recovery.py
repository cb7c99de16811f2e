"""Files in every state that a crash between two steps can leave."""

import os
import shutil
from pathlib import Path

import pytest

from proxy.journal.segments import Journal
from tests.journal.disk import drain, make_settings, opened, segment_files, trace_id

BODY = b"y" * 1000
OPEN = 1000


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A journal of several segments, half committed, with one open request; nothing is deleted yet."""
    directory = tmp_path / "before"
    with opened(directory) as journal:
        journal.append_intent(trace_id(OPEN), b"open")
        for number in range(300):
            journal.append_intent(trace_id(number), BODY)
            journal.append_final(trace_id(number), BODY)
    return directory


@pytest.fixture
def after(tmp_path: Path, before: Path) -> Path:
    """The same journal after 150 records were committed and the old segments deleted."""
    directory = tmp_path / "after"
    shutil.copytree(before, directory)
    with opened(directory) as journal:
        while journal.depth > 150:
            journal.commit(journal.read_batch(min(50, journal.depth - 150), 1 << 20))
    assert len(segment_files(directory)) < len(segment_files(before))
    return directory


def check(directory: Path, expected: range) -> None:
    journal = Journal(directory, make_settings())
    recovery = journal.open()
    assert [record.trace_id for record in recovery.orphans] == [trace_id(OPEN)]
    assert recovery.damaged_frames == 0
    assert [record.trace_id for record in drain(journal)] == [trace_id(n) for n in expected]
    journal.close()


def test_crash_when_between_commit_and_delete_then_nothing_is_read_again(before: Path, after: Path) -> None:
    for path in segment_files(before):
        if not (after / path.name).exists():
            shutil.copy(path, after)
    check(after, range(150, 300))


def test_crash_when_only_a_part_was_deleted_then_nothing_is_read_again(before: Path, after: Path) -> None:
    gone = [path for path in segment_files(before) if not (after / path.name).exists()]
    for path in gone[1:]:
        shutil.copy(path, after)
    check(after, range(150, 300))


def test_crash_when_before_the_cursor_was_stored_then_committed_records_come_again(before: Path, after: Path) -> None:
    shutil.copy(before / "cursor", after)
    journal = Journal(after, make_settings())
    journal.open()
    again = [record.trace_id for record in drain(journal)]
    assert again == [trace_id(n) for n in range(300 - len(again), 300)]
    assert len(again) >= 150
    journal.close()


def test_crash_when_while_an_intent_was_moved_then_it_is_known_once(before: Path) -> None:
    first, *_, last = segment_files(before)
    frame_bytes = 37 + len(b"open")
    data = first.read_bytes()[:frame_bytes]
    number = int(last.name[:16]) + 1
    last.with_name(f"{number:016d}.journal").write_bytes(data)
    check(before, range(300))


def test_segment_when_it_cannot_be_deleted_then_it_is_recognised_as_old_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, **_: object) -> None:
        raise PermissionError("injected")

    with opened(tmp_path) as journal, monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        for number in range(200):
            journal.append_final(trace_id(number), BODY)
        drain(journal)
    assert len(segment_files(tmp_path)) > 3

    with opened(tmp_path) as again:
        assert again.depth == 0
        assert segment_files(tmp_path) == []
