"""Several processes on one data address, for a machine with several cores and without Kubernetes.

    sidegate serve --workers 2
        worker 0    data address, shared    ops address           DATA/worker-0
        worker 1    the same                its port, plus one    DATA/worker-1

Each worker is a complete sidecar with its own journal, ops port and metrics; the kernel distributes new connections
among them (SO_REUSEPORT), and PostgreSQL holds what they share. This process only starts them, forwards signals and
restarts a worker that died.

Failure mode: a worker that cannot start (a mistake in a file, a port in use) ends all of them, with its exit code.

Source: socket(7), SO_REUSEPORT; prctl(2), PR_SET_PDEATHSIG.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from proxy import logs
from proxy.config.schema import Config
from proxy.process.admin_key import admin_key, keep

_PARENT_DEATH: Final = 1
_STARTED_S: Final = 5.0
_RESTART_PAUSE_S: Final = 1.0
_log = logging.getLogger("sidegate.workers")


def commands(config: Config, count: int, config_file: Path | None) -> list[list[str]]:
    """Return the command of each worker.

    Raises:
        ValueError: several processes cannot serve this configuration; the message says what to change.
    """
    listen, ops = config.server.listen, config.server.ops_listen
    if config.database.url is None:
        raise ValueError("several workers need a PostgreSQL that they share: set database.url (DATABASE_URL)")
    if not listen.port:
        raise ValueError("several workers need a port that they share: set server.listen (SIDEGATE_LISTEN)")
    if ops.port and ops.port <= listen.port < ops.port + count and ops.host == listen.host:
        raise ValueError("the ops ports of the workers reach the data port: set server.ops_listen further away")
    made = []
    for number in range(count):
        command = [sys.executable, "-m", "proxy", "serve", "--reuse-port"]
        command += [] if config_file is None else ["--config", str(config_file)]
        command += ["--listen", _address(listen.host, listen.port)]
        command += ["--ops-listen", _address(ops.host, ops.port + number if ops.port else 0)]
        command += ["--data-dir", str(data_dir(config, number))]
        made.append(command)
    return made


def data_dir(config: Config, number: int) -> Path:
    """Return the data directory of a worker."""
    return Path(config.data_dir) / f"worker-{number}"


def run(config: Config, count: int, config_file: Path | None) -> int:
    """Keep the workers running until SIGTERM or SIGINT; return the exit code. Raises as `commands`."""
    logs.configure(config.logging.level)
    made = commands(config, count, config_file)
    if config.admin_key is None:
        key = admin_key(config, Path(config.data_dir))
        for number in range(count):
            keep(key, data_dir(config, number))
    return asyncio.run(_Crew(made).run())


class _Crew:
    """The running workers, and the signals received."""

    def __init__(self, made: Sequence[Sequence[str]]) -> None:
        self._commands = made
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        await asyncio.gather(*(self._keep(number) for number in range(len(self._commands))))
        return self._code

    def _end(self) -> None:
        """Ask all workers to end; a second call makes them hurry."""
        self._ending.set()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            # Its own session: Ctrl-C reaches only this process, which then asks each worker once.
            process = await asyncio.create_subprocess_exec(
                *self._commands[number], start_new_session=True, preexec_fn=partial(end_with_parent, os.getpid())
            )
            self._running[number] = process
            _log.info("worker started", extra={"worker": number, "pid": process.pid})
            if self._ending.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            if self._ending.is_set():
                self._code = self._code or max(code, 0)
                return
            _log.error("worker ended", extra={"worker": number, "code": code})
            if code > 0 and time.monotonic() - began < _STARTED_S:
                self._code = code
                return self._end()
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_RESTART_PAUSE_S):
                await self._ending.wait()
        except TimeoutError:
            pass


def end_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends, in whatever way; end now if that has already happened.

    `parent`: the parent's process id, which may be 1, the first process of a container.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
