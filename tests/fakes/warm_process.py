"""The process that `tests.fakes.warm` speaks of: it imports the package, waits, and forks a command when asked.

Rule of the file: one thread, no event loop, nothing opened, so that a fork is as good as new. Arguments: the descriptor
of the listening socket. Standard input is the lifeline: its end is the end of the tests.
"""

import atexit
import gc
import json
import os
import random
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from proxy.cli.main import COMMANDS, main

MAX_TASK_BYTES = 1 << 17
# What commands import when they run, and the proxy when it is first asked for its own API.
LATER = ("proxy.serve", "proxy.process.workers", "proxy.demo", "proxy.api.assembly", "proxy.ingress.listener")


class Kennel:
    """The commands that run, by process id, each with the connection to the test that started it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._running: dict[int, socket.socket] = {}
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        self._wake_end = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the tests; they end us
        signal.set_wakeup_fd(wake)

    def serve(self) -> None:
        """Fork until the tests end."""
        while True:
            ready = select.select([self._listener, self._wake, 0], [], [])[0]
            if 0 in ready:
                break
            if self._wake in ready:
                os.read(self._wake, 1024)
                self._report()
            if self._listener in ready:
                self._start(self._listener.accept()[0])
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(os.path.dirname(self._listener.getsockname()))

    def _report(self) -> None:
        """Tell the exit codes of those that ended."""
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with self._running.pop(pid) as talk:
                try:
                    talk.send(str(os.waitstatus_to_exitcode(status)).encode())
                except OSError:
                    pass  # nobody waits for it any more

    def _start(self, talk: socket.socket) -> None:
        task, files, _, _ = socket.recv_fds(talk, MAX_TASK_BYTES, 3)
        pid = os.fork()
        if not pid:
            self._forget()
            talk.close()
            become(json.loads(task), files)
        for file in files:
            os.close(file)
        self._running[pid] = talk
        talk.send(str(pid).encode())

    def _forget(self) -> None:
        """Give back what belongs to the warm process; called in the fork."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in (self._listener, *self._running.values()):
            other.close()
        for end in (self._wake, self._wake_end):
            os.close(end)


def become(task: dict[str, Any], files: list[int]) -> NoReturn:
    """Run the command that the task names and leave with its exit code, as the console script does."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    time.tzset()
    random.seed()
    sys.argv = [str(Path(sys.executable).with_name("sidegate")), *task["words"]]
    if task["env"].get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    code: Any = 1
    try:
        code = main()
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter's end does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    for target, _ in COMMANDS.values():
        import_module(target.partition(":")[0])
    for name in LATER:
        import_module(name)
    gc.collect()
    gc.freeze()
    Kennel(socket.socket(fileno=int(sys.argv[1]))).serve()
