"""Processes of the private PostgreSQL: start one, end one, end one that an earlier process left behind.

Rule of the file: a process is signalled only if we started it, or if it stands in our data directory. The number in
`postmaster.pid` proves nothing: after a kill or in a new container it may belong to anyone.

Failure mode: `EmbeddedPostgresError` when a predecessor cannot be ended.

Source: PostgreSQL documentation 18.5 "Shutting Down the Server" (SIGINT fast, SIGQUIT immediate); proc(5).
"""

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from proxy.db import exec_postgres
from proxy.db.install import EmbeddedPostgresError, Place

POLL_S = 0.02
_FAST_S = 10.0
_IMMEDIATE_S = 5.0
_TAIL_BYTES = 2000


def spawn(place: Place, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run a program as the server's account; it dies with the calling thread. Output goes to the server's log.

    It gets a session of its own, so that Ctrl-C reaches only us and the server outlives the drain, and an environment
    without the provider's keys.
    """
    command = [sys.executable, "-I", "-S", exec_postgres.__file__, str(place.account.uid), str(place.account.gid)]
    command += [str(os.getpid()), str(place.instance), str(place.programs / program), *arguments]
    with _new_log(place) as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )


def log_tail(place: Place) -> str:
    """Return the end of what the latest process wrote."""
    text = (place.home / "server.log").read_bytes()[-_TAIL_BYTES:]
    return text.decode(errors="replace").strip()


async def finish(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process and return its exit code; if we are cancelled, kill it and what it started."""
    try:
        await _within(math.inf, lambda: process.poll() is not None)
    finally:
        if process.poll() is None:
            # It leads a session of its own; a moment after its start it may not do so yet.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        process.wait()
    return process.returncode


async def end(process: subprocess.Popen[bytes]) -> None:
    """Shut a server down: fast, then without writing a checkpoint, then by force."""
    for number, patience in ((signal.SIGINT, _FAST_S), (signal.SIGQUIT, _IMMEDIATE_S)):
        process.send_signal(number)
        if await _within(patience, lambda: process.poll() is not None):
            return
    process.kill()
    process.wait()


async def end_predecessor(data: Path) -> None:
    """End a server that still runs on this data directory, and remove a process number that is another's by now.

    The caller holds the lock of the instance: whoever started that server is dead, and it may be shutting down already.

    Raises:
        EmbeddedPostgresError: it does not end.
    """
    note = data / "postmaster.pid"
    pid = _noted_pid(note)
    if pid is None or sys.platform != "linux":
        return  # elsewhere PostgreSQL's own check of the number has to do
    for number, patience in ((signal.SIGINT, _FAST_S), (signal.SIGQUIT, _IMMEDIATE_S)):
        if not _stands_in(pid, data):
            break
        _signal(pid, number)
        await _within(patience, lambda: not _stands_in(pid, data))
    if _stands_in(pid, data):
        raise EmbeddedPostgresError(f"an earlier PostgreSQL (process {pid}) on {data} does not end; end it first")
    _forget(note, pid)


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def _noted_pid(note: Path) -> int | None:
    try:
        return int(note.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _stands_in(pid: int, data: Path) -> bool:
    """Tell whether the process works in our data directory, as every PostgreSQL process does in its own."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")) == data
    except OSError:
        return False


def _forget(note: Path, pid: int) -> None:
    """Remove the note if its number now belongs to a stranger: PostgreSQL would take him for its predecessor."""
    if _noted_pid(note) == pid and Path(f"/proc/{pid}").exists():
        note.unlink(missing_ok=True)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _new_log(place: Place) -> BinaryIO:
    """Open a log for one process; the one before is kept as `server.log.1`, so the two together stay small."""
    path = place.home / "server.log"
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600), "wb")
