"""Become a PostgreSQL program: drop root, ask to die with the parent, execute. A script, run in a process of its own.

Run as `python -I -S exec_postgres.py <uid> <gid> <pid of the parent> <directory> <program> <arguments>`. The directory
is opened before root is dropped and stays open as `INSTANCE_FD` for the program and all its children: they may use it
even where they may not enter the directories above it.

The order matters: the kernel clears the parent-death signal when credentials change, and a parent that died before the
signal was set is only seen by looking. A process of its own does this because code between fork and exec is not safe in
a process with threads.

The signal is SIGINT, PostgreSQL's fast shutdown: connections are ended, everything is written. The kernel sends it when
the *thread* that forked ends. Elsewhere than on Linux there is no such signal, and the next start ends what was left.

Failure mode: a message on standard error (the server's log) and exit code 1.

Source: prctl(2), PR_SET_PDEATHSIG; PostgreSQL documentation 18.5 "Shutting Down the Server".
"""

import ctypes
import os
import signal
import sys

INSTANCE_FD = 3
PR_SET_PDEATHSIG = 1


def main(uid: int, gid: int, parent: int, directory: str, command: list[str]) -> None:
    """Replace this process by `command`, running as `uid`. Returns never, or raises OSError."""
    os.dup2(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), INSTANCE_FD)
    os.set_inheritable(INSTANCE_FD, True)
    if os.geteuid() != uid:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # Whoever is started in the background of a shell ignores it, and so would the program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir("/")
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise ProcessLookupError("the parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[5]}: {error}")
