import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.config.schema import Config
from proxy.process.admin_key import admin_key, keep
from tests.fakes.judge import eventually


def test_admin_key_when_configured_then_that_one_and_nothing_is_written(tmp_path: Path) -> None:
    assert admin_key(Config.model_validate({"admin_key": "k" * 20}), tmp_path) == "k" * 20
    assert list(tmp_path.iterdir()) == []


def test_admin_key_when_none_is_configured_then_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    made = admin_key(Config(), tmp_path / "var")
    assert made.startswith("sg-admin-")
    assert admin_key(Config(), tmp_path / "var") == made
    assert (tmp_path / "var" / "admin.key").stat().st_mode & 0o777 == 0o600


def test_admin_key_when_another_was_kept_there_then_that_one(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("")
    assert admin_key(Config(), tmp_path) != ""
    keep("mine", tmp_path)
    assert admin_key(Config(), tmp_path) == "mine"


def test_keep_when_another_reads_meanwhile_then_the_former_key_is_whole(tmp_path: Path) -> None:
    keep("former", tmp_path)
    with (tmp_path / "admin.key").open() as opened_before:
        keep("mine", tmp_path)
        assert opened_before.read() == "former\n"
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600


def test_admin_key_when_the_file_holds_no_text_then_it_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_bytes(b"sg-\xff\xfe")
    with pytest.raises(OSError, match=r"admin\.key does not hold an admin key.* remove the file"):
        admin_key(Config(), tmp_path)


def test_admin_key_when_several_start_first_at_once_then_all_use_the_one_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"

    def openings() -> int:
        return sum(link.is_symlink() and link.readlink() == path for link in Path("/proc/self/fd").iterdir())

    with ThreadPoolExecutor(4) as pool:
        with path.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            starts = [pool.submit(admin_key, Config(), tmp_path) for _ in range(4)]
            eventually(lambda: openings() == 5, 5)  # each has found no key, and waits
        keys = {start.result() for start in starts}
    assert keys == {path.read_text().strip()} and path.read_text().startswith("sg-admin-")
