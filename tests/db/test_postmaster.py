import asyncio
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.db.exec_postgres import INSTANCE_FD
from proxy.db.install import Account, Place
from proxy.db.postmaster import end, end_predecessor, finish, log_tail, spawn


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place whose programs are shell scripts."""
    scripts = {
        "looker": f"ls /proc/self/fd/{INSTANCE_FD}/",
        "sleeper": "exec sleep 60",
        "announcer": "echo ready; exec sleep 60",
        "stubborn": "trap '' INT QUIT; echo ready; sleep 60",
        "talker": 'echo "$@"; echo "$SECRET" >&2; exit 3',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "instance").mkdir()
    return Place(tmp_path, tmp_path / "instance", "", tmp_path, Account(os.geteuid(), os.getegid()))


def predecessor(data: Path, program: str = "exec sleep 60") -> "subprocess.Popen[bytes]":
    data.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(["sh", "-c", f"cd {data}; echo ready; {program}"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    (data / "postmaster.pid").write_text(f"{process.pid}\n{data}\n")
    return process


async def test_spawn_when_program_ends_then_code_and_output_are_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "canary")
    assert await finish(spawn(place, "talker", "first", "1")) == 3
    assert await finish(spawn(place, "talker", "second", "2")) == 3
    assert log_tail(place) == "second 2"
    assert "first 1" in (place.home / "server.log.1").read_text()


async def test_spawn_then_program_and_its_children_inherit_the_instance_directory(place: Place) -> None:
    (place.instance / "mark").touch()
    assert await finish(spawn(place, "looker")) == 0
    assert log_tail(place) == "mark"


async def test_spawn_when_program_is_missing_then_log_says_so(place: Place) -> None:
    assert await finish(spawn(place, "nothing")) == 1
    assert "cannot run" in log_tail(place)


async def test_spawn_when_the_thread_ends_then_program_ends(place: Place) -> None:
    with ThreadPoolExecutor(1) as short_lived:
        process = short_lived.submit(spawn, place, "announcer").result()
        async with asyncio.timeout(10):
            while log_tail(place) != "ready":
                await asyncio.sleep(0.01)
        assert process.poll() is None
    assert await asyncio.wait_for(finish(process), 10) == -signal.SIGINT


async def test_end_when_process_obeys_then_it_is_gone_at_once(place: Place) -> None:
    process = spawn(place, "sleeper")
    began = time.monotonic()
    await end(process)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5


async def test_end_when_process_is_stubborn_then_it_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.db.postmaster._FAST_S", 0.1)
    monkeypatch.setattr("proxy.db.postmaster._IMMEDIATE_S", 0.1)
    process = spawn(place, "stubborn")
    async with asyncio.timeout(10):
        while log_tail(place) != "ready":
            await asyncio.sleep(0.01)
    await end(process)
    assert process.returncode == -signal.SIGKILL


async def test_finish_when_cancelled_then_process_is_killed(place: Place) -> None:
    process = spawn(place, "sleeper")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(finish(process), 0.05)
    assert process.returncode == -signal.SIGKILL


async def test_end_predecessor_when_none_then_nothing_happens(tmp_path: Path) -> None:
    await end_predecessor(tmp_path)
    (tmp_path / "postmaster.pid").write_text("not a number")
    await end_predecessor(tmp_path)
    (tmp_path / "postmaster.pid").write_text(f"{2**22 + 1}\n")
    await end_predecessor(tmp_path)
    assert (tmp_path / "postmaster.pid").exists()


async def test_end_predecessor_when_it_runs_in_our_directory_then_it_is_ended(tmp_path: Path) -> None:
    process = predecessor(tmp_path / "data")
    await asyncio.gather(end_predecessor(tmp_path / "data"), finish_gently(process))
    assert process.returncode == -signal.SIGINT


async def test_end_predecessor_when_number_is_a_strangers_then_only_the_note_goes(tmp_path: Path) -> None:
    process = predecessor(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    note = tmp_path / "data" / "postmaster.pid"
    note.write_text(f"{process.pid}\n")
    await end_predecessor(tmp_path / "data")
    assert process.poll() is None
    assert not note.exists()
    process.kill()
    process.wait()


async def finish_gently(process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        await asyncio.sleep(0.01)
