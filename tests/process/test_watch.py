"""Files that change in every way in which files change."""

import os
from pathlib import Path

import pytest

from proxy.process.watch import Watch, stamps


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file behind two links, as Kubernetes mounts it."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text("same length")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "key").symlink_to("..data/key")
    return tmp_path / "key"


def swap(file: Path) -> None:
    (file.parent / "..new").symlink_to("2")
    (file.parent / "..new").rename(file.parent / "..data")


def write(file: Path) -> None:
    file.write_text("more")


def replace(file: Path) -> None:
    (file.parent / "other").write_text("same length")
    (file.parent / "other").replace(file)


@pytest.mark.parametrize("change", [swap, write, replace, Path.unlink])
def test_change_when_it_is_over_then_it_is_seen_at_the_second_look(file: Path, change) -> None:
    watch = Watch([file])
    assert [watch.has_changed() for _ in range(3)] == [False] * 3
    change(file)
    assert [watch.has_changed() for _ in range(3)] == [False, True, True]
    watch.note_read([file], stamps([file]))
    assert [watch.has_changed() for _ in range(2)] == [False, False]


def test_change_when_it_goes_on_then_it_is_waited_for(file: Path) -> None:
    watch = Watch([file])
    for size in range(1, 4):
        file.write_text("x" * size)
        assert not watch.has_changed()
    assert watch.has_changed()


def test_change_when_it_was_made_while_the_file_was_read_then_it_is_seen(file: Path) -> None:
    watch, before = Watch([file]), stamps([file])
    write(file)
    watch.note_read([file], before)
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_file_when_nobody_looked_before_it_was_read_then_it_counts_as_changed(file: Path) -> None:
    watch = Watch([])
    watch.note_read([file], {})
    assert watch.files == (file,)
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_file_when_it_cannot_be_looked_at_then_it_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert stamps([tmp_path / "away"]) == {tmp_path / "away": None}
    assert stamps([tmp_path / "pipe"])[tmp_path / "pipe"] is not None
