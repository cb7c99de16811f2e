"""How long the event loop stands still while one client, or the provider, sends what is large or made to be slow.

    python -m bench.stalls                          all kinds (bench/stall_kinds.py), some minutes
    python -m bench.stalls prose deep "answer, *"   some of them
    python -m bench.stalls --at-once 12 prose       twelve at a time
    python -m bench.stalls --where 10 deep          with the stacks of all threads 10 ms into a stall

A real `sidegate serve` with a heartbeat of one millisecond in its loop. Between two beats count what the process
computed meanwhile, all its threads, and what passed on the clock while the loop did not wait for a core; the smaller
of both is the stall: where other programs take the cores, the clock says too much. A second client sends requests
of 200 bytes all the time, and a third one requests of 80 KB, which need a thread as well; told is how long any of these
took at most.

The stacks are read by a thread of the proxy. It runs once a call that nothing can interrupt has ended, before the
thread that made it has gone on; collections of garbage are told as well, as they run within any call.

Source: Linux, Documentation/scheduler/sched-stats.rst, for /proc/PID/task/TID/schedstat.
"""

import argparse
import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Coroutine
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bench import load, upstream
from bench.stall_kinds import Kind, kinds
from proxy import serve
from proxy.cli.main import main as cli
from proxy.db.embedded import EmbeddedPostgres
from tests.fakes.sidegate import Sidegate

ROUNDS = 3
_BEAT_S = 0.001
_TOLD_S = 0.004
_STALL = re.compile(r"stall ([0-9.]+) ms")
_LONGEST_S = 60.0
_SETTLED_S = 0.2
_RELOAD = "reload of a changed rule"
_RULES = """
rules:
  - {{id: own-key, category: secret, severity: high, pattern: "{word}-[a-z0-9]{{20}}", match: ["{word}-{{a20}}"]}}
"""
_OTHERS_BYTES = (0, 80_000)
_CALLS = 8
_WAITING = ("work_queue.get(", "waiter.acquire(", "ready.wait(", "gate.acquire(", "time.sleep(")


class _Watched(Sidegate):
    """A proxy that tells its stalls in its log. `where_s`: so far into a stall, also where its threads are."""

    where_s: float | None = None

    def _begin(self, log: int) -> "subprocess.Popen[bytes]":
        where = [] if self.where_s is None else [str(self.where_s)]
        command = [sys.executable, "-m", "bench.stalls", "--serve", *where]
        return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stalls(self) -> list[float]:
        """Return all stalls so far, in milliseconds."""
        return [float(found) for found in _STALL.findall(self.log())]


async def _beating(main: Coroutine[Any, Any, int], where_s: float | None) -> int:
    beat = _Beat()
    beating = asyncio.create_task(beat.go_on())
    if where_s is not None:
        gc.callbacks.append(_Collections(where_s).tell)
        threading.Thread(target=beat.watch, args=(where_s,), daemon=True).start()
    try:
        return await main
    finally:
        beating.cancel()


class _Beat:
    """The heartbeat of the event loop."""

    counts = False
    """Whether the process listens: nobody waits before."""

    def __init__(self) -> None:
        self._beaten = time.perf_counter()
        self._computed = time.process_time()

    async def go_on(self) -> None:
        """Beat, and tell where a beat was late."""
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat", "rb", buffering=0) as schedstat:
            while True:
                ready, counts = _ready_s(schedstat), self.counts
                self._beaten, self._computed = time.perf_counter(), time.process_time()
                await asyncio.sleep(_BEAT_S)
                stall = min(_ready_s(schedstat) - ready, time.process_time() - self._computed)
                if counts and stall >= _TOLD_S:
                    sys.stderr.write(f"stall {stall * 1000:.1f} ms\n")

    def watch(self, where_s: float) -> None:
        """Print all stacks once this thread was kept, or the loop has not beaten, for so long."""
        told = 0.0
        while True:
            looked, computed = time.perf_counter(), time.process_time()
            time.sleep(_BEAT_S)
            kept = min(time.perf_counter() - looked, time.process_time() - computed)
            late = min(time.perf_counter() - self._beaten, time.process_time() - self._computed)
            if max(kept, late) > where_s and told != self._beaten:
                told = self._beaten
                sys.stderr.write(f"kept {kept * 1000:.1f} ms, late {late * 1000:.1f} ms\n{_stacks()}\n")


def _stacks() -> str:
    """Return the innermost calls of the event loop, and of all other threads that are not waiting for work."""
    own, loop = threading.get_ident(), threading.main_thread().ident
    frames = {at: frame for at, frame in sys._current_frames().items() if at != own}
    stacks = {at: traceback.extract_stack(frame)[-_CALLS:] for at, frame in frames.items()}
    return "\n".join(
        "    " + " < ".join(f"{call.name} ({call.filename.rpartition('/')[2]}:{call.lineno})" for call in stack[::-1])
        for at, stack in stacks.items()
        if at == loop or not any(waiting in (stack[-1].line or "") for waiting in _WAITING)
    )


class _Collections:
    """Tells the collections of garbage that take long."""

    def __init__(self, told_s: float) -> None:
        self._told_s = told_s
        self._begun = 0.0

    def tell(self, phase: str, info: dict[str, int]) -> None:
        """Be called by the collector (`gc.callbacks`)."""
        now = time.thread_time()
        if phase == "start":
            self._begun = now
        elif now - self._begun > self._told_s / 2:
            sys.stderr.write(f"collection of generation {info['generation']}: {(now - self._begun) * 1000:.1f} ms\n")


def _ready_s(schedstat: FileIO) -> float:
    """Return the time on the clock without that in which the loop's thread waited for a core."""
    schedstat.seek(0)
    return time.perf_counter() - int(schedstat.read(100).split()[1]) / 1e9


class _Provider:
    """Answers what the kind under test says, and small requests as `bench.upstream` does."""

    def __init__(self) -> None:
        self.kind = Kind()
        self._usual = upstream.ANSWER.partition(b"\r\n\r\n")[2]

    async def start(self) -> tuple[web.ServerRunner, int]:
        """Listen; return what is to be cleaned up, and the port."""
        runner = web.ServerRunner(web.Server(self._handle), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        kind = self.kind
        if request.headers.get("Upgrade"):
            return await self._talk(request, kind)
        try:
            body = await request.content.read()
        except ConnectionResetError:  # the policy has ended an upload
            return web.Response()
        if kind.answer is None or len(body) == 0 or b"one short paragraph" in body:
            return web.Response(body=self._usual, content_type="application/json")
        headers = {"Content-Type": kind.answer_type} | ({"Content-Encoding": "gzip"} if kind.is_compressed else {})
        return web.Response(body=kind.answer, headers=headers)

    async def _talk(self, request: web.BaseRequest, kind: Kind) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        for _ in kind.up:
            if (await socket.receive()).type is not aiohttp.WSMsgType.TEXT:
                return socket  # the policy has kept the message, and the client has left
        for text in kind.down:
            await socket.send_str(text)
        await socket.send_str('{"type":"done"}')
        await socket.receive()
        return socket


async def _ask(address: load.Address, kind: Kind) -> str:
    if kind.up or kind.down:
        return await _talk(address, kind)
    reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
    head = f"POST {kind.path} HTTP/1.1\r\nHost: sidegate\r\nContent-Type: {kind.content_type}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(kind.body)}\r\n\r\n".encode() + kind.body)
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode()


async def _talk(address: load.Address, kind: Kind) -> str:
    url = f"http://{address[0]}:{address[1]}{kind.path}?model=gpt-realtime"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        for text in kind.up:
            await socket.send_str(text)
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            if message.data == '{"type":"done"}':
                return "101"
            if message.data.startswith('{"type":"error"'):
                return "101 and an error"
        return f"{message.type.name} {message.data}"


async def _others(address: load.Address, size: int, waited: list[float]) -> None:
    """Send requests with `size` bytes more than usual, one after the other; note how long each took, in seconds."""
    [connection] = await load.open_connections(address, 1)
    data = load.chat_request(address, stream=False, more=size)
    while True:
        asked = time.perf_counter()
        await connection.ask(data)
        waited.append(time.perf_counter() - asked)
        await asyncio.sleep(0.002)


async def measure(options: argparse.Namespace, directory: Path, database_url: str) -> None:
    """Print the largest stalls of each kind."""
    provider = _Provider()
    runner, port = await provider.start()
    rules = directory / "rules.yaml"
    rules.write_text(_RULES.format(word="first"))
    settings = {"SIDEGATE__POLICY__RULES_FILE": str(rules)}
    proxy = _Watched(directory, f"http://127.0.0.1:{port}/v1", database_url, settings)
    proxy.where_s = None if options.where is None else options.where / 1000
    try:
        await asyncio.to_thread(proxy.start)
        await asyncio.to_thread(proxy.reach_database)
        waited: list[float] = []
        others = [asyncio.create_task(_others(proxy.address, size, waited)) for size in _OTHERS_BYTES]
        await asyncio.sleep(2)
        seen = len(proxy.stalls())
        print(f"{'while it starts':36} largest stall {max(proxy.stalls(), default=0):5.1f} ms")
        if options.where is not None:
            print(proxy.log(), end="")
        if _is_chosen(options, _RELOAD):
            seen = await _measure_reload(proxy, rules, seen)
        for name, make in kinds().items():
            if not _is_chosen(options, name):
                continue
            kind = make()  # for a second or more, in which the answers to others wait here
            await asyncio.sleep(_SETTLED_S)
            waited.clear()
            seen = await _measure_one(options, proxy, provider, (name, kind), seen)
            print(f", others waited {max(waited, default=0) * 1000:.0f} ms", flush=True)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    finally:
        await asyncio.to_thread(proxy.stop)
        await runner.cleanup()


def _is_chosen(options: argparse.Namespace, name: str) -> bool:
    return not options.kinds or any(fnmatchcase(name, pattern) for pattern in options.kinds)


async def _measure_reload(proxy: _Watched, rules: Path, seen: int) -> int:
    """Change a rule, and print the stalls until the changed policy is in force; return how many were told so far."""
    rules.write_text(_RULES.format(word="second"))
    os.kill(proxy.process.pid, signal.SIGHUP)
    async with asyncio.timeout(_LONGEST_S):
        while "the configuration was reloaded" not in proxy.log():
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    found = proxy.stalls()[seen:]
    print(f"{_RELOAD:36} largest stall {max(found, default=0):5.1f} ms", flush=True)
    return seen + len(found)


async def _measure_one(
    options: argparse.Namespace, proxy: _Watched, provider: _Provider, named: tuple[str, Kind], seen: int
) -> int:
    """Send one kind some times and print its stalls; return how many were told so far."""
    name, kind = named
    provider.kind = kind
    written = len(proxy.log())
    begun = time.perf_counter()
    answers = set()
    for _ in range(options.rounds):
        try:
            async with asyncio.timeout(_LONGEST_S):
                answers.update(await asyncio.gather(*(_ask(proxy.address, kind) for _ in range(options.at_once))))
        except TimeoutError:
            answers.add("not at all")
            break
    took = (time.perf_counter() - begun) / options.rounds
    await asyncio.sleep(0.2)
    found = proxy.stalls()[seen:]
    size = max(len(kind.body), len(kind.answer or b""), *map(len, (*kind.up, *kind.down, "")))
    text = ", ".join(f"{stall:.0f}" for stall in sorted(found, reverse=True)[:3]) or f"< {_TOLD_S * 1000:.0f}"
    print(f"{name:36} {size / 1e6:4.1f} MB answered {'/'.join(answers)} in {took:5.2f} s, stalls {text} ms", end="")
    if options.where is not None:
        print("\n" + proxy.log()[written:], end="")
    return seen + len(found)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "proxy").mkdir()
        if given := os.environ.get("DATABASE_URL"):
            await measure(options, directory / "proxy", given)
            return
        private = EmbeddedPostgres(directory / "postgres")
        try:
            await measure(options, directory / "proxy", await private.start())
        finally:
            await private.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.stalls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help="names of kinds, or patterns such as 'answer, *'; default: all")
    parser.add_argument("--list", action="store_true", help="print the names of all kinds and end")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each kind is sent (default: %(default)s)")
    parser.add_argument(
        "--at-once", type=int, default=1, help="how many send it at the same time (default: %(default)s)"
    )
    parser.add_argument("--where", type=float, metavar="MS", help="print the stacks of all threads so far into a stall")
    return parser.parse_args()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        after_s = float(sys.argv[-1]) if sys.argv[-1] != "--serve" else None
        runner = serve.run_loop
        listen = serve._Process._listen

        async def listened(process: serve._Process, app: Any) -> None:
            await listen(process, app)
            _Beat.counts = True

        serve._Process._listen = listened  # type: ignore[method-assign]
        serve.run_loop = lambda running: runner(_beating(running, after_s))
        sys.exit(cli(["serve"]))
    chosen = _options()
    if chosen.list:
        print("\n".join([_RELOAD, *kinds()]))
    else:
        asyncio.run(main(chosen))
