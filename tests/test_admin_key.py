from pathlib import Path

from proxy.admin_key import admin_key, keep
from proxy.config.schema import Config


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
