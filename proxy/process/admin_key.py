"""The operator's key: the configured one, or one created at the first start in the data directory.

If two processes start at once, one creates the key under a lock on the file, and the other reads it. An empty file was
left by a process that died before it wrote the key, and counts as none.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from proxy.config.schema import Config

FILE_NAME: Final = "admin.key"


def admin_key(config: Config, data_dir: Path) -> str:
    """Return the configured key, else the one stored in `data_dir`, created if there is none.

    Raises:
        OSError: the file cannot be read or created, or does not hold a key. The message does not quote it.
    """
    if config.admin_key is not None:
        return config.admin_key.get_secret_value()
    path = data_dir / FILE_NAME
    with suppress(FileNotFoundError):
        if key := _key_in(path.read_bytes(), path):
            return key
    data_dir.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing ends it, after the key is written
        file.seek(0)
        if key := _key_in(file.read(), path):
            return key
        key = f"sg-admin-{secrets.token_urlsafe(32)}"
        file.write(f"{key}\n".encode())
    return key


def keep(key: str, data_dir: Path) -> None:
    """Store a key where `admin_key` finds it, readable by this user only; a reader sees the former key or this one."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=data_dir, prefix=f"{FILE_NAME}.", delete=False) as file:  # mode 0600
        file.write(f"{key}\n")
    os.replace(file.name, data_dir / FILE_NAME)


def _key_in(content: bytes, path: Path) -> str:
    """Return the key in the file, empty if there is none."""
    key = content.strip()
    if not key.isascii():  # a header could not carry it
        raise OSError(
            f"{path} does not hold an admin key, only ASCII can be one: "
            "remove the file, and a new key is created, or set SIDEGATE_ADMIN_KEY"
        )
    return key.decode()
