"""A changed configuration is taken over while requests run, or refused as a whole.

The files are mounted as Kubernetes does it: their names are links through `..data`, and a new version is a new
directory to which `..data` is turned in one step.
"""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import LAST_CHUNK, chunk, script, sse_head
from tests.fakes.wire import Wire, exchange, post

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"tell me about swordfish"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"once upon a time there was"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
CANARY = "zq7-canary-value"
RULE = "rules: [{id: fish, category: keyword, severity: high, pattern: swordfish, boundary: anywhere}]\n"


class Mount:
    """A directory whose files change together."""

    def __init__(self, path: Path, files: dict[str, str]) -> None:
        self.path = path
        self.files: dict[str, str] = {}
        self._number = 0
        path.mkdir()
        self.swap(files)

    def swap(self, files: dict[str, str]) -> None:
        self._number += 1
        self.files |= files
        version = self.path / f"..version-{self._number}"
        version.mkdir()
        for name, text in self.files.items():
            (version / name).write_text(text)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..new").symlink_to(version.name)
        (self.path / "..new").rename(self.path / "..data")


class Reloading:
    """A proxy with its configuration in a mount."""

    def __init__(self, directory: Path, provider: Provider, database_url: str) -> None:
        self.base_url = provider.base_url
        self.directory = directory
        self.mount = Mount(directory / "etc", {"key": "sk-first-key\n", "rules.yaml": RULE, **self.config()})
        path = str(self.mount.path / "sidegate.yaml")
        own = {"SIDEGATE_CONFIG": path, "UPSTREAM_BASE_URL": "", "OPENAI_API_KEY": ""}
        self.proxy = Sidegate(directory, "", database_url, own, by_script=True).start()

    def config(self, **settings: Any) -> dict[str, str]:
        document = {
            "server": {"watch_s": 0.1},
            "upstream": {"base_url": self.base_url, "api_key": f"file:{self.directory}/etc/key"},
            **settings,
        }
        return {"sidegate.yaml": json.dumps(document)}

    def count(self, result: str) -> float:
        return self.proxy.metrics()[f'sidegate_config_reloads_total{{result="{result}"}}']

    async def change(self, files: dict[str, str], result: str = "success") -> None:
        """Exchange files and wait until that had its result."""
        before = self.count(result)
        self.mount.swap(files)
        try:
            await asyncio.to_thread(eventually, lambda: self.count(result) > before, 30)
        except AssertionError as error:
            raise AssertionError(f"no {result}:\n{self.proxy.log()[-2000:]}") from error

    async def hang_up(self) -> None:
        """Ask for a reload by signal and wait for it."""
        before = {result: self.count(result) for result in ("success", "unchanged", "failure")}
        self.proxy.process.send_signal(signal.SIGHUP)
        has_result = lambda: any(self.count(result) > count for result, count in before.items())  # noqa: E731
        await asyncio.to_thread(eventually, has_result, 30)

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.proxy.log().splitlines())
        return [line for line in lines if line["event"] == event]

    def version(self) -> str:
        return next(name for name in self.proxy.metrics() if name.startswith("sidegate_config_info"))


@pytest.fixture(scope="module")
def shared(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reloading]:
    running = Reloading(tmp_path_factory.mktemp("reload"), provider, session_database_url)
    yield running
    running.proxy.stop()


@pytest.fixture
def reloading(shared: Reloading) -> Iterator[Reloading]:
    """The proxy, with its first configuration again after the test."""
    yield shared
    shared.mount.swap({"key": "sk-first-key\n", "rules.yaml": RULE, **shared.config()})
    asyncio.run(shared.hang_up())


async def test_secret_when_swapped_under_load_then_no_request_fails_and_running_ones_end_as_they_began(
    provider: Provider, reloading: Reloading, case: str
) -> None:
    proxy, statuses, done = reloading.proxy, [], asyncio.Event()

    async def ask_on() -> None:
        async with await Wire.open(proxy.address) as wire:
            while not done.is_set():
                await wire.send(post("/v1/chat/completions", CHAT, case=case))
                statuses.append((await wire.reply()).status)

    gate = provider.gate()
    provider.on(f"{case}-stream", script(sse_head(), chunk(EVENT), gate, chunk(END), LAST_CHUNK))
    async with asyncio.timeout(30), await Wire.open(proxy.address) as stream:
        await stream.send(post("/v1/chat/completions", STREAM, case=f"{case}-stream"))
        assert (await stream.head()).status == 200
        load = [asyncio.create_task(ask_on()) for _ in range(8)]
        opened = provider.connections
        await reloading.change({"key": "sk-second-key\n"})
        await reloading.change(reloading.config(timeouts={"gap_s": 77}))
        await reloading.change({"key": "sk-third-key\n"})
        seen = len(statuses)
        await asyncio.to_thread(eventually, lambda: len(statuses) > seen + 50)
        done.set()
        await asyncio.gather(*load)
        gate.open()
        await stream.until(b"[DONE]")
    assert set(statuses) == {200}
    keys = [seen.value(b"authorization") for seen in provider.seen(case)]
    assert [keys[0], keys[-1]] == [b"Bearer sk-first-key", b"Bearer sk-third-key"]
    assert set(keys) == {b"Bearer sk-first-key", b"Bearer sk-second-key", b"Bearer sk-third-key"}
    assert provider.connections - opened <= 16, "another key needs no other connections, other times do"
    last = reloading.events("the configuration was reloaded")[-1]
    assert last["keys"] == ["upstream.api_key"]
    assert "sk-" not in proxy.log()


async def test_policy_when_its_file_changes_then_the_next_request_is_judged_by_it(
    reloading: Reloading, case: str
) -> None:
    ask = post("/v1/chat/completions", CHAT, case=case)
    rules, version = f"{reloading.directory}/etc/rules.yaml", reloading.version()
    policy = {"rules_file": rules, "prompt_actions": {"fish": "block"}}
    assert (await exchange(reloading.proxy.address, ask)).status == 200
    await reloading.change(reloading.config(policy=policy))
    blocking = reloading.version()
    assert (await exchange(reloading.proxy.address, ask)).status == 400
    await reloading.change({"rules.yaml": RULE.replace("swordfish", "shark")})
    assert (await exchange(reloading.proxy.address, ask)).status == 200
    assert len({version, blocking, reloading.version()}) == 3
    assert reloading.events("the configuration was reloaded")[-1]["keys"] == ["policy.rules_file"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"sidegate.yaml": f"server: {{watchs: {CANARY}}}"}, "did you mean watch_s"),
        ({"key": ""}, "which is empty"),
        ({"sidegate.yaml": ""}, "sets nothing any more"),
        ({"sidegate.yaml": f"identity: {{default_user: {CANARY}}}"}, "names no provider any more"),
        ({"sidegate.yaml": f"upstream: {{api_key: 'file:/nowhere/{CANARY[:3]}'}}"}, "cannot be read"),
        ({"rules.yaml": RULE.replace("swordfish", "'(swordfish'")}, "fish"),
    ],
    ids=["unknown key", "empty secret", "empty file", "no provider", "secret away", "bad rule"],
)
async def test_configuration_when_it_is_wrong_then_the_old_one_serves_on_and_it_is_told(
    reloading: Reloading, case: str, files: dict[str, str], told: str
) -> None:
    rules = {"rules_file": f"{reloading.directory}/etc/rules.yaml"}
    await reloading.change(reloading.config(policy=rules))
    version = reloading.version()
    await reloading.change(files, "failure")
    metrics = reloading.proxy.metrics()
    assert metrics["sidegate_config_last_reload_successful"] == 0
    assert reloading.version() == version
    assert (await exchange(reloading.proxy.address, post("/v1/chat/completions", CHAT, case=case))).status == 200
    problems = reloading.events("the configuration is invalid; the current one stays in force")[-1]["problems"]
    assert told in "\n".join(problems)
    assert CANARY not in reloading.proxy.log()
    await reloading.change({"key": f"sk-{case}\n", "rules.yaml": RULE, **reloading.config(policy=rules)})
    metrics = reloading.proxy.metrics()
    assert metrics["sidegate_config_last_reload_successful"] == 1
    assert time.time() - metrics["sidegate_config_last_success_timestamp_seconds"] < 30


async def test_sighup_when_files_are_not_watched_then_it_reloads_and_names_what_cannot_change(
    provider: Provider, reloading: Reloading, case: str
) -> None:
    await reloading.change(reloading.config(server={"watch_s": 0}))
    fixed = {"server": {"watch_s": 0.1, "uvloop": False}, "database": {"pool_size": 7}}
    reloading.mount.swap({"key": "sk-by-signal", **reloading.config(**fixed)})
    await asyncio.sleep(0.5)
    await exchange(reloading.proxy.address, post("/v1/chat/completions", CHAT, case=case))
    await reloading.hang_up()
    await exchange(reloading.proxy.address, post("/v1/chat/completions", CHAT, case=case))
    keys = [seen.value(b"authorization") for seen in provider.seen(case)]
    assert keys == [b"Bearer sk-first-key", b"Bearer sk-by-signal"]
    (warning,) = reloading.events("keys that change only with a restart keep their value")
    assert warning["keys"] == ["server.uvloop", "database.pool_size"]
    assert reloading.events("the configuration was reloaded")[-1]["keys"] == ["server.watch_s", "upstream.api_key"]


async def test_reload_when_done_often_then_memory_and_descriptors_are_as_before(
    reloading: Reloading, case: str
) -> None:
    proxy = reloading.proxy
    rules = f"{reloading.directory}/etc/rules.yaml"

    async def reload(number: int) -> None:
        (reloading.mount.path / "..data" / "rules.yaml").write_text(RULE.replace("swordfish", f"shark{number // 5}"))
        config = reloading.config(policy={"rules_file": rules}, timeouts={"gap_s": 100 + number})["sidegate.yaml"]
        (reloading.mount.path / "..data" / "sidegate.yaml").write_text(config)
        await reloading.hang_up()
        answer = await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case))
        assert answer.status == 200

    for number in range(5):
        await reload(number)
    succeeded, before, open_before = reloading.count("success"), proxy.rss_bytes(), proxy.descriptors()
    for number in range(5, 25):
        await reload(number)
    assert reloading.count("success") >= succeeded + 20
    await asyncio.to_thread(eventually, lambda: proxy.descriptors() <= open_before + 2)
    grown = (proxy.rss_bytes() - before) / (1 << 20)
    assert grown < 6, f"{grown:.1f} MiB after 20 reloads"
