"""Commands of `sidegate` as processes of their own, without the half second in which Python imports them.

One process per session has imported everything and waits; a command is a fork of it, with an environment, a directory
and standard files of its own, running the function that the console script runs. What is about the start itself (what
it imports, how long it takes, what it weighs) runs the script instead.

    test or typed command --[arguments, environment, directory; three files]--> the warm process --fork--> the command
                          <--[its pid, later its exit code]---------------------

When the tests end, however they end, the warm process reads the end of its standard input and ends what still runs.
The other end of the conversation is `tests/fakes/warm_process.py`.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock

_STARTING = Lock()
PROGRAM = Path(__file__).with_name("warm_process.py")


class Command:
    """A running command: the part of `subprocess.Popen` that tests need."""

    def __init__(
        self, socket_path: str, words: Sequence[str], env: Mapping[str, str], cwd: Path | str, files: Sequence[int]
    ) -> None:
        self.args = list(words)
        self.returncode: int | None = None
        self._talk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._talk.connect(socket_path)
        task = json.dumps({"words": [str(word) for word in words], "env": dict(env), "cwd": str(cwd)}).encode()
        socket.send_fds(self._talk, [task], list(files))
        self.pid = int(self._talk.recv(20))

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; the negative number of the signal that ended it. Raises: TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._talk], [], [], timeout)[0]:
            self.returncode = int(self._talk.recv(20) or -signal.SIGKILL)
            self._talk.close()
        return self.returncode


def warm() -> str:
    """Return the path of the socket of this session's warm process, which the first call starts."""
    with _STARTING:
        return _start_warm()


@cache
def _start_warm() -> str:
    path = os.path.join(tempfile.mkdtemp(prefix="sidegate-warm-", dir="/tmp"), "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        environ = {"PATH": os.environ["PATH"]}
        command = [sys.executable, "-P", PROGRAM, str(listener.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, pass_fds=[listener.fileno()])
    atexit.register(process.communicate)
    return path


def start(words: Sequence[str], env: Mapping[str, str], cwd: Path | str, out: int, err: int) -> Command:
    """Start `sidegate` with these words after its name; it reads nothing from standard input."""
    with open(os.devnull) as nothing:
        return Command(warm(), words, env, cwd, [nothing.fileno(), out, err])


def run(words: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it said."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = start(words, env, cwd, out.fileno(), err.fileno())
        try:
            code = command.wait(60)
        finally:
            command.kill()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(command.args, code, *said)


def typed() -> str:
    """Return a program for `python -ISE` that stands for `sidegate`. It passes SIGTERM and SIGINT on."""
    return f"""\
import json, os, signal, socket, sys
talk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
talk.connect("{warm()}")
task = {{"words": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}
socket.send_fds(talk, [json.dumps(task).encode()], [0, 1, 2])
pid = int(talk.recv(20))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(talk.recv(20) or 1)
sys.exit(code if code >= 0 else 128 - code)
"""
