"""A private PostgreSQL for a laptop and for tests, started, supervised and stopped by this process.

Starting: take the lock of the instance -> create the data directory if there is none -> stop a predecessor that still
runs -> start the server -> wait until it answers. `start` never blocks the event loop.

- Who may connect: the operating system user that runs Sidegate, nobody else. The only way in is a unix socket in a
  directory of its own (0700), and PostgreSQL asks the kernel who is calling (`peer`). There is no password and no TCP.
- Who may start: one process per data directory (flock on the instance; the kernel gives it back after any death).
- When we die, also by SIGKILL, the server shuts down cleanly (see `exec_postgres`). After a kill of the server itself
  the next start, or `supervise`, recovers from the write-ahead log.

Failure mode: `EmbeddedPostgresError` with the last lines of the server's log. That log never quotes data: errors of
statements are not logged.

Source: PostgreSQL documentation, chapters 18 to 20; unix(7) for the length of a socket's name.
"""

import asyncio
import fcntl
import logging
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from proxy.db.install import DATA, SHELTER, EmbeddedPostgresError, Place, prepare
from proxy.db.postmaster import POLL_S, end, end_predecessor, finish, log_tail, spawn

DATABASE = "postgres"  # the one that is there from the beginning
SOCKET_PARENT = Path("/tmp")
"""Short, because the name of a unix socket has at most 107 bytes; the data directory's own path may be longer."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",  # otherwise plans count on workers that do not come
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "io_method": "sync",  # otherwise three more processes
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # above `error`: a refused statement or its values never reach the log
    "log_checkpoints": "off",
    "update_process_title": "off",
}

_START_S = 60.0  # replaying the write-ahead log after a kill can take long
_PATIENCE_S = 15.0
_PREDECESSOR_SIGNS = ("still in use", "already exists")
_SUPERVISE_S = 0.5
_RETRY_S = 5.0

_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """One private PostgreSQL below `data_dir`.

    `settings` are laid over `SETTINGS`. Call `start` on a thread that lives as long as the server should: the kernel
    ends the server when that thread ends.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None, shelter: Path = SHELTER) -> None:
        self._data_dir = data_dir
        self._settings = {**SETTINGS, **(settings or {})}
        self._shelter = shelter
        self._hold: _Hold | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        """Start the server and return its DSN, as asyncpg and psql take it. First start about 2 s, later ones 0.3 s.

        Raises:
            EmbeddedPostgresError: not installed, in use by another process, or the server does not come up.
        """
        if self._hold is not None:
            raise EmbeddedPostgresError("this private PostgreSQL is started already")
        place = await asyncio.to_thread(prepare, self._data_dir, self._shelter)
        self._hold = hold = _Hold(place, self._data_dir)
        try:
            await _ensure_data(place)
            await self._run(hold)
            hold.publish()
        except BaseException:
            await self.stop()
            raise
        return hold.dsn

    async def stop(self) -> None:
        """Shut the server down and give everything back. Does nothing if there is nothing to stop."""
        if self._process is not None:
            await end(self._process)
            self._process = None
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    async def supervise(self) -> None:
        """Start the server again whenever it ends by itself, under the same DSN. Cancel it before `stop`."""
        while self._hold is not None and self._process is not None:
            if self._process.poll() is None:
                await asyncio.sleep(_SUPERVISE_S)
                continue
            _log.warning("the private PostgreSQL ended with code %s; starting it again", self._process.returncode)
            try:
                await self._run(self._hold)
            except EmbeddedPostgresError as error:
                _log.error("the private PostgreSQL does not start: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def _run(self, hold: "_Hold") -> None:
        """Start the server and wait until it answers. Patient with what a killed predecessor left behind."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + _PATIENCE_S
        await end_predecessor(hold.place.data)
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        while True:
            arguments = ["-D", f"{hold.place.reach}/{DATA}", "-k", str(hold.socket_dir), *options]
            self._process = spawn(hold.place, "postgres", *arguments)
            if await _answers(self._process, hold):
                return
            reason = log_tail(hold.place)
            if loop.time() > patience or not any(sign in reason for sign in _PREDECESSOR_SIGNS):
                raise EmbeddedPostgresError(f"PostgreSQL ended with code {self._process.returncode}:\n{reason}")
            await asyncio.sleep(0.1)


class _Hold:
    """What one started instance occupies: the lock, the socket's directory and the file that tells the DSN."""

    def __init__(self, place: Place, data_dir: Path) -> None:
        self.place = place
        self._lock = os.open(place.instance, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.socket_dir = _new_socket_dir(place)
        except BlockingIOError:
            os.close(self._lock)
            raise EmbeddedPostgresError(
                f"another process uses the private PostgreSQL of {data_dir}: stop it, choose another "
                "SIDEGATE_DATA_DIR, or set DATABASE_URL"
            ) from None
        except BaseException:
            os.close(self._lock)
            raise
        self.dsn = f"postgresql://{quote(_caller(), safe='')}@/{DATABASE}?host={self.socket_dir}"

    def publish(self) -> None:
        """Write the DSN where an operator finds it: `psql "$(cat var/postgres/dsn)"`."""
        (self.place.home / "dsn").write_text(f"{self.dsn}\n")

    def release(self) -> None:
        """Give everything back; the server has ended."""
        (self.place.home / "dsn").unlink(missing_ok=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        os.close(self._lock)


def _caller() -> str:
    """Return our name as the kernel's answer to PostgreSQL will give it; `initdb` makes the superuser of this name."""
    return pwd.getpwuid(os.geteuid()).pw_name


def _new_socket_dir(place: Place) -> Path:
    """Make a private directory for the socket, and remove that of a run that was killed."""
    note = place.home / "socket"
    if note.exists():
        _remove_socket_dir(Path(note.read_text().strip()), place)
    made = Path(tempfile.mkdtemp(prefix="sidegate-", dir=SOCKET_PARENT))
    os.chown(made, place.account.uid, place.account.gid)
    note.write_text(f"{made}\n")
    return made


def _remove_socket_dir(path: Path, place: Place) -> None:
    """Remove a directory if it is one of ours: the note may be old and the name another's by now."""
    if path.parent == SOCKET_PARENT and path.name.startswith("sidegate-") and path.is_dir():
        if path.lstat().st_uid == place.account.uid:
            shutil.rmtree(path, ignore_errors=True)


async def _ensure_data(place: Place) -> None:
    """Make the data directory under another name and move it into place: it is there completely or not at all."""
    if place.data.exists():
        return
    for left in place.instance.glob("new*"):
        await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
    # A name of its own: what a killed initdb leaves behind may still be growing while it is removed.
    unfinished = place.instance / f"new-{secrets.token_hex(4)}"
    arguments = ["-D", f"{place.reach}/{unfinished.name}", "-U", _caller(), "--auth-local=peer", "--auth-host=reject"]
    arguments += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
    if await finish(spawn(place, "initdb", *arguments)) != 0:
        raise EmbeddedPostgresError(f"initdb failed:\n{log_tail(place)}")
    unfinished.rename(place.data)


async def _answers(process: subprocess.Popen[bytes], hold: _Hold) -> bool:
    """Wait for the first answer. False: the server ended instead."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_S
    while process.poll() is None:
        try:
            connection = await asyncpg.connect(hold.dsn, timeout=5.0)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            if loop.time() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL does not answer within {_START_S:.0f} s") from None
            await asyncio.sleep(POLL_S)
        except asyncpg.PostgresError as error:
            raise EmbeddedPostgresError(f"PostgreSQL does not let its own user in: {error}") from error
        else:
            await connection.close()
            return True
    return False
