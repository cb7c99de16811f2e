"""Several processes on one address: what they are told, and how they live and end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.config.schema import Config
from proxy.process.workers import commands, end_with_parent
from tests.conftest import Postgres
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import ADMIN_KEY, Sidegate
from tests.fakes.wire import exchange, post

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
DATABASE = {"url": "postgresql://h/d"}


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_commands_when_workers_are_several_then_each_has_its_own_ops_port_and_data() -> None:
    config = Config.model_validate(
        {"database": DATABASE, "data_dir": "/d", "server": {"listen": {"host": "::1", "port": 8080}}}
    )
    made = commands(config, 3, Path("c.yaml"))
    assert [option(command, "--listen") for command in made] == ["[::1]:8080"] * 3
    assert [option(command, "--ops-listen") for command in made] == [f"127.0.0.1:{port}" for port in (9090, 9091, 9092)]
    assert [option(command, "--data-dir") for command in made] == [f"/d/worker-{number}" for number in range(3)]
    assert all("--reuse-port" in command and option(command, "--config") == "c.yaml" for command in made)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "database.url"),
        ({"database": DATABASE, "server": {"listen": {"port": 0}}}, "server.listen"),
        ({"database": DATABASE, "server": {"listen": {"port": 9091}}}, "server.ops_listen"),
    ],
)
def test_commands_when_several_cannot_serve_it_then_it_says_what_to_change(settings: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        commands(Config.model_validate(settings), 2, None)


@pytest.mark.parametrize(("parent", "code"), [(os.getpid(), 7), (1, 1)], ids=["alive", "gone"])
def test_worker_when_its_parent_is_gone_before_it_begins_then_it_does_not(parent: int, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", "exit(7)"], preexec_fn=partial(end_with_parent, parent))
    assert process.wait(10) == code


class Crew:
    """`sidegate serve --workers 2` in a process of its own."""

    def __init__(self, directory: Path, provider: Provider, database_url: str, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()[:2]
        environment = Sidegate(directory, provider.base_url, database_url)._environment
        environment |= {"SIDEGATE_LISTEN": f"127.0.0.1:{self.address[1]}", **settings}
        self.log = directory / "log"
        with self.log.open("wb") as log:
            command = [str(Path(sys.executable).with_name("sidegate")), "serve", "--workers", "2"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=directory)

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider().start()
    yield running
    running.stop()


async def test_workers_when_one_dies_then_the_others_serve_and_it_comes_again_and_all_end_together(
    tmp_path: Path, provider: Provider, postgres: Postgres, database_url: str
) -> None:
    crew = Crew(tmp_path, provider, database_url)
    ask = post("/v1/chat/completions", CHAT, case="crew")
    try:
        await asyncio.to_thread(eventually, lambda: len(crew.lines("listening")) == 2, 60)
        answers = await asyncio.gather(*(exchange(crew.address, ask) for _ in range(24)))
        assert {answer.status for answer in answers} == {200}
        pids = [line["pid"] for line in crew.lines("worker started")]
        served = [len(list((tmp_path / "var" / f"worker-{number}" / "journal").iterdir())) for number in range(2)]
        assert all(served)
        os.kill(pids[0], signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: crew.lines("worker ended"), 10)
        assert (await exchange(crew.address, ask)).status == 200
        await asyncio.to_thread(eventually, lambda: len(crew.lines("listening")) == 3, 60)
        crew.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(eventually, lambda: len(crew.lines("the configuration is unchanged")) == 2, 20)
    finally:
        assert await asyncio.to_thread(crew.end) == 0
    assert len(crew.lines("stopped")) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert ADMIN_KEY not in crew.log.read_text()


async def test_workers_when_they_cannot_start_then_all_end_with_their_code(
    tmp_path: Path, provider: Provider, postgres: Postgres, database_url: str
) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [{id: x, pattern: '('}]")
    crew = Crew(tmp_path, provider, database_url, SIDEGATE__POLICY__RULES_FILE=str(tmp_path / "rules.yaml"))
    assert await asyncio.to_thread(crew.process.wait, 60) == 78
