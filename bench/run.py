"""Measure what Sidegate costs beside two pass-throughs, in one run, on the same machine, in turns.

Four ways to the same provider: direct, through `bench.plain` and `bench.passthrough`, and through Sidegate with tracing
into a real PostgreSQL. Every process stands alone; CPU time is that of the proxy's own process (all threads, from the
kernel), so the load generator and PostgreSQL do not count. Rounds alternate between the proxies and the ratios are
taken per round: what the machine does meanwhile hits all. Ratios come first, because figures depend on the machine.

PostgreSQL: `DATABASE_URL` if it is set, else a private instance for the time of the run.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import load, upstream
from proxy.db.embedded import EmbeddedPostgres
from tests.fakes.sidegate import Sidegate

LIMITS = "targets: ratio <= 1.0, added p50 < 1.2 ms, p99 < 6 ms, idle < 85 MB, ready < 1.5 s"


@dataclass
class Child:
    """A process of the benchmark: listens on `address`, ends when its standard input closes."""

    process: subprocess.Popen[str]
    address: load.Address

    @classmethod
    def start(cls, module: str, *arguments: str) -> "Child":
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        return cls(process, ("127.0.0.1", int(process.stdout.readline())))

    def stop(self) -> None:
        self.process.communicate()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, in nanosecond steps."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@dataclass
class Way:
    """A proxy to be measured."""

    name: str
    pid: int
    address: load.Address


@dataclass
class Cost:
    """CPU microseconds per unit, one figure per round and way."""

    what: str
    figures: dict[str, list[float]]

    def ratios(self) -> str:
        return f"{self.what:<44} " + "   ".join(f"x {self._ratio(name)} of {name}" for name in ("plain", "bare"))

    def _ratio(self, name: str) -> str:
        ratios = [ours / theirs for ours, theirs in zip(self.figures["sidegate"], self.figures[name], strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"

    def line(self) -> str:
        return f"{self.what:<44} " + "   ".join(f"{name} {_range(values)}" for name, values in self.figures.items())


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):6.0f} us ({min(values):.0f} - {max(values):.0f})"


async def cost(
    what: str, rounds: int, units: int, work: Callable[[load.Address], Awaitable[None]], ways: list[Way]
) -> Cost:
    """Let `work` run every way in turns; `units` says how many requests or events one run has."""
    found = Cost(what, {way.name: [] for way in ways})
    for way in ways:
        await work(way.address)
    for round_number in range(rounds):
        for way in ways if round_number % 2 else reversed(ways):
            before = cpu_s(way.pid)
            await work(way.address)
            found.figures[way.name].append((cpu_s(way.pid) - before) * 1e6 / units)
    return found


async def latency(ways: dict[str, load.Address], per_second: int, seconds: float) -> dict[str, list[float]]:
    """Send plain requests every way at the same time, evenly spread, and return sorted latencies in milliseconds."""
    pacers = {name: load.Pacer(address, []) for name, address in ways.items()}
    step = 1 / per_second / len(pacers)
    await asyncio.gather(*(p.run(per_second, seconds, index * step) for index, p in enumerate(pacers.values())))
    return {name: sorted(value * 1000 for value in pacer.latencies) for name, pacer in pacers.items()}


def quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def start_sidegate(directory: Path, provider: Child, database_url: str) -> Sidegate:
    directory.mkdir()
    base = f"http://127.0.0.1:{provider.address[1]}/v1"
    return Sidegate(directory, base, database_url, by_script=True).start()


async def measure(options: argparse.Namespace, directory: Path, database_url: str) -> None:
    provider = Child.start("bench.upstream")
    base = f"http://127.0.0.1:{provider.address[1]}"
    bare, plain = Child.start("bench.passthrough", base), Child.start("bench.plain", base)
    start_sidegate(directory / "first", provider, database_url).stop()  # applies the migrations, once
    starts = []
    for number in range(3):
        sidegate = start_sidegate(directory / str(number), provider, database_url)
        starts.append(sidegate.ready_after_s)
        if number < 2:
            sidegate.stop()
    await asyncio.sleep(1)
    idle = sidegate.rss_bytes()
    try:
        proxies = [
            Way("plain", plain.process.pid, plain.address),
            Way("bare", bare.process.pid, bare.address),
            Way("sidegate", sidegate.process.pid, sidegate.address),
        ]
        costs = await all_costs(options, proxies)
        ways = {"direct": provider.address, "bare": bare.address, "sidegate": sidegate.address}
        await latency(ways, 100, 1)
        times = await latency(ways, 100, options.seconds)
        report(costs, times, starts, idle, sidegate.rss_bytes())
    finally:
        sidegate.stop()
        bare.stop()
        plain.stop()
        provider.stop()


async def all_costs(options: argparse.Namespace, proxies: list[Way]) -> list[Cost]:
    requests, streams, rounds = options.requests, options.streams, options.rounds
    events = streams * upstream.EVENTS
    return [
        await cost(
            f"request, {upstream.ANSWER_BYTES} B answer, 16 connections", rounds, requests,
            lambda address: load.closed_loop(address, 16, requests), proxies,
        ),
        await cost(
            f"SSE event, {streams} streams, usage not asked for", rounds, events,
            lambda address: load.streams(address, streams, ask_usage=False), proxies,
        ),
        await cost(
            f"SSE event, {streams} streams, usage asked for", rounds, events,
            lambda address: load.streams(address, streams, ask_usage=True), proxies,
        ),
    ]  # fmt: skip


def report(costs: list[Cost], times: dict[str, list[float]], starts: list[float], idle: int, loaded: int) -> None:
    print("CPU time of the proxy's process, Sidegate's as a multiple of the pass-throughs' (median of the rounds)")
    for one in costs:
        print("  " + one.ratios())
    print("CPU time, microseconds")
    for one in costs:
        print("  " + one.line())
    print("latency at 100 requests/s, milliseconds")
    for name, ordered in times.items():
        p50, p99 = quantile(ordered, 0.5), quantile(ordered, 0.99)
        added = (p50 - quantile(times["direct"], 0.5), p99 - quantile(times["direct"], 0.99))
        print(f"  {name:<10} p50 {p50:6.2f}  p99 {p99:6.2f}   added p50 {added[0]:6.2f}  p99 {added[1]:6.2f}")
    print(f"ready after {statistics.median(starts):.2f} s ({min(starts):.2f} - {max(starts):.2f}), external database")
    print(f"resident memory {idle / 1e6:.1f} MB idle, {loaded / 1e6:.1f} MB after the load")
    print(LIMITS)


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if given := os.environ.get("DATABASE_URL"):
            await measure(options, directory, given)
            return
        private = EmbeddedPostgres(directory / "postgres")
        try:
            await measure(options, directory, await private.start())
        finally:
            await private.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds per figure and proxy (%(default)s)")
    parser.add_argument("--requests", type=int, default=1600, help="plain requests per round (%(default)s)")
    parser.add_argument("--streams", type=int, default=20, help="streams at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="length of the latency measurement (%(default)s)")
    uvloop.run(main(parser.parse_args()))
