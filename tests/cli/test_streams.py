"""Commands whose standard streams are closed or broken, as processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import bare_environment

SCRIPT = Path(sys.executable).with_name("sidegate")
OPENED = "import os, sys; from proxy.cli import streams; streams.fill(); "


def test_fill_when_standard_streams_are_closed_then_no_socket_gets_their_numbers():
    code = OPENED + (
        "import socket; numbers = [os.fstat(n).st_rdev for n in (0, 1, 2)]; made = socket.socket().fileno(); "
        "print('nobody reads this'); sys.exit(made > 2 and numbers == [os.stat(os.devnull).st_rdev] * 3)"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 1


def test_fill_when_they_are_open_then_they_stay():
    code = OPENED + "print(sys.stdin.read()); print('error', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], input="in", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("in\n", "error\n")


@pytest.mark.parametrize(("words", "code"), [(["config", "show"], 1), (["nope"], 2)])
def test_command_when_nobody_reads_its_output_then_the_exit_code_is_its_own(words, code, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [SCRIPT, *words], stdout=writer, stderr=writer, env=bare_environment(), cwd=tmp_path, check=False, timeout=60
    )
    os.close(writer)
    assert done.returncode == code


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", [["config", "show"], ["--help"], ["serve", "--help"], ["--version"]], ids=" ".join)
def test_command_when_the_disk_of_its_output_is_full_then_it_fails_and_says_so(words, environment, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [SCRIPT, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=bare_environment() | environment,
            cwd=tmp_path,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "sidegate: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_when_its_encoding_lacks_a_letter_then_an_escape_stands_there(encoding):
    code = OPENED + "print('K\\xe4se \\u5bc6')"
    environment = bare_environment() | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.endswith(b"se \\u5bc6\n")
