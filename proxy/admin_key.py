"""The operator's key: the configured one, or one created at the first start in the data directory."""

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.config.schema import Config

FILE_NAME: Final = "admin.key"


def admin_key(config: Config, data_dir: Path) -> str:
    """Return the configured key, else the one stored in `data_dir`, created if there is none."""
    if config.admin_key is not None:
        return config.admin_key.get_secret_value()
    path = data_dir / FILE_NAME
    with suppress(FileNotFoundError):
        if key := path.read_text().strip():  # empty: the process that created it died before writing
            return key
    key = f"sg-admin-{secrets.token_urlsafe(32)}"
    keep(key, data_dir)
    return key


def keep(key: str, data_dir: Path) -> None:
    """Store a key where `admin_key` finds it, readable by this user only."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / FILE_NAME
    path.touch(mode=0o600)
    path.write_text(key + "\n")
