"""How long the event loop stands still while one client sends bodies of 8 MB, or small ones made to be slow.

    python -m bench.stalls

A real `sidegate serve` with a heartbeat of one millisecond in its loop. Between two beats count what the process
computed meanwhile, all its threads, and what passed on the clock while the loop did not wait for a core; the smaller
of both is the stall: where other programs take the cores, the clock says too much. A second client sends small requests
all the time.

The kinds are the worst that a client can think of: one long text, base64, words of random letters, beginnings of
secrets and of card numbers, nothing but addresses, a hundred thousand messages, and JSON of as many elements as
`limits.json_structurals` takes. Some of them: `python -m bench.stalls prose deep`.

Source: Linux, Documentation/scheduler/sched-stats.rst, for /proc/PID/task/TID/schedstat.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from bench import load
from bench.policy_stream import CODE, PROSE
from bench.run import Child
from proxy import serve
from proxy.cli.main import main as cli
from proxy.db.embedded import EmbeddedPostgres
from proxy.policy import rules
from tests.fakes.sidegate import Sidegate

SIZE = 8_000_000
ROUNDS = 3
_BEAT_S = 0.001
_TOLD_S = 0.004
_STALL = re.compile(r"stall ([0-9.]+) ms")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def bodies() -> dict[str, bytes]:
    """Return one body of each kind."""
    chance = random.Random(7)
    letters = "".join(chance.choices(_BASE64, k=SIZE))
    words = "".join(
        "".join(chance.choices(_BASE64 + "-_ .:=", k=12)) + chance.choice(" =:\n") for _ in range(SIZE // 13)
    )
    groups = "".join(f"{chance.randrange(10_000):04} " for _ in range(SIZE // 5))
    message = {"role": "user", "content": "How do I change the password of a user whose mail is gone?"}
    begun = [example[:size] for rule in rules.load().rules for example in rule.match for size in range(3, 14)]
    head = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}],"metadata":'
    return {
        "prose": _chat((PROSE * (SIZE // len(PROSE)))[:SIZE]),
        "code": _chat((CODE * (SIZE // len(CODE)))[:SIZE]),
        "base64": _chat(letters),
        "lines of base64": _chat("\n".join(letters[at : at + 76] for at in range(0, SIZE, 76))),
        "random words": _chat(words),
        "16 KB of beginnings of keys": _chat(" ".join(chance.choices(begun, k=1800))),
        "sk-proj- repeated": _chat("sk-proj-" * (SIZE // 8)),
        "groups of digits": _chat(groups),
        "addresses": _chat("a.b@mail-of-c.de " * (SIZE // 17)),
        "100,000 messages": _json({"model": "gpt-4o-mini", "messages": [message] * 100_000}),
        "empty objects": head + b"[" + b"{}," * 990_000 + b"{}]}",
        "empty lists": head + b"[" + b"[]," * 990_000 + b"[]]}",
        "numbers": head + b"[" + b"100," * 1_900_000 + b"1]}",
        "deep": head + b"[" + (b"[" * 100 + b"]" * 100 + b",") * 19_000 + b"1]}",
        "a key twice": b'{"stream":false,"stream":false,' + _json({"messages": [message] * 90_000})[1:],
        "a key to be masked": _json({"messages": [message] * 90_000 + [{"role": "user", "content": _MEDIUM}]}),
    }


_MEDIUM = "Bearer token=kJ3hD8sLq0ZxV5nB2mT7yR4wP9cF6gA1"


def _chat(text: str) -> bytes:
    return _json({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]})


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class _Watched(Sidegate):
    """A proxy that tells its stalls in its log."""

    def _begin(self, log: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "bench.stalls", "--serve"]
        return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stalls(self) -> list[float]:
        """Return all stalls so far, in milliseconds."""
        return [float(found) for found in _STALL.findall(self.log())]


async def _beating(main: Coroutine[Any, Any, int]) -> int:
    beating = asyncio.create_task(_beat())
    try:
        return await main
    finally:
        beating.cancel()


async def _beat() -> None:
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat", "rb", buffering=0) as schedstat:
        while True:
            ready, cpu = _ready_s(schedstat), time.process_time()
            await asyncio.sleep(_BEAT_S)
            stall = min(_ready_s(schedstat) - ready, time.process_time() - cpu)
            if stall >= _TOLD_S:
                sys.stderr.write(f"stall {stall * 1000:.1f} ms\n")


def _ready_s(schedstat: FileIO) -> float:
    """Return the time on the clock without that in which the loop's thread waited for a core."""
    schedstat.seek(0)
    return time.perf_counter() - int(schedstat.read(100).split()[1]) / 1e9


async def _ask(address: load.Address, body: bytes) -> str:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: sidegate\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    writer.write(body)
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode()


async def _small(address: load.Address) -> None:
    [connection] = await load.open_connections(address, 1)
    data = load.chat_request(address, stream=False)
    while True:
        await connection.ask(data)
        await asyncio.sleep(0.002)


async def measure(directory: Path, database_url: str, named: list[str]) -> None:
    """Print the largest stalls of each kind of body. `named`: the kinds, all if empty."""
    provider = Child.start("bench.upstream")
    proxy = _Watched(directory, f"http://127.0.0.1:{provider.address[1]}/v1", database_url)
    try:
        await asyncio.to_thread(proxy.start)
        await asyncio.to_thread(proxy.reach_database)
        small = asyncio.create_task(_small(proxy.address))
        await asyncio.sleep(2)
        before = len(proxy.stalls())
        print(f"{'while it starts':20} largest stall {max(proxy.stalls(), default=0):5.1f} ms")
        for name, body in bodies().items():
            if named and name not in named:
                continue
            begun = time.perf_counter()
            answers = {await _ask(proxy.address, body) for _ in range(ROUNDS)}
            took = (time.perf_counter() - begun) / ROUNDS
            await asyncio.sleep(0.2)
            seen = sorted(proxy.stalls()[before:], reverse=True)
            before += len(seen)
            text = ", ".join(f"{stall:.0f}" for stall in seen[:3]) or f"< {_TOLD_S * 1000:.0f}"
            print(
                f"{name:20} {len(body) / 1e6:4.1f} MB answered {'/'.join(answers)} in {took:5.2f} s, stalls {text} ms"
            )
        small.cancel()
        with suppress(asyncio.CancelledError):
            await small
    finally:
        await asyncio.to_thread(proxy.stop)
        provider.stop()


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "proxy").mkdir()
        if given := os.environ.get("DATABASE_URL"):
            await measure(directory / "proxy", given, sys.argv[1:])
            return
        private = EmbeddedPostgres(directory / "postgres")
        try:
            await measure(directory / "proxy", await private.start(), sys.argv[1:])
        finally:
            await private.stop()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        runner = serve.run_loop
        serve.run_loop = lambda running: runner(_beating(running))
        sys.exit(cli(["serve"]))
    asyncio.run(main())
