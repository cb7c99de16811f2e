"""Measure what an answer from the cache costs: the client's wait and the proxy's processor, beside a request sent on.

A running proxy with policy, quotas and traces as they are by default, and a provider that answers at once. One client
asks in turn for a kept answer, whole and as a stream, and with `Cache-Control: no-store` for a new one.

Run it with `python -m bench.cache`; `--help` tells the knobs. Exit code 1: a target is missed.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from bench import load
from bench.run import Child
from bench.upstream import EVENTS
from proxy.db.embedded import EmbeddedPostgres
from tests.fakes.sidegate import Sidegate

MOST_MS = 1.0
TARGETS = f"targets: median of a hit < {MOST_MS:.0f} ms, whole and as a stream"
_ENABLE = "UPDATE projects SET config = '{\"features\": {\"enableCache\": true}}' WHERE id = 'default-project'"
_BLOCKS = 5
_HITS = ("hit, whole", f"hit, {EVENTS} events")
_FOLLOWED_S = 4.0  # a changed project counts within two seconds

Measured = dict[str, tuple[list[float], list[float]]]
"""Milliseconds that the client waited, and milliseconds of processor per request, in blocks."""


async def measured(options: argparse.Namespace) -> Measured:
    """Return the figures by what was asked for."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        server = EmbeddedPostgres(directory / "data")
        url = await server.start()
        stack.push_async_callback(server.stop)
        provider = await asyncio.to_thread(Child.start, "bench.upstream")
        stack.push_async_callback(asyncio.to_thread, provider.stop)
        home = directory / "proxy"
        home.mkdir()
        proxy = Sidegate(home, f"http://127.0.0.1:{provider.address[1]}/v1", url, by_script=True)
        await asyncio.to_thread(proxy.start)
        stack.push_async_callback(asyncio.to_thread, proxy.stop)
        await _enable(url)
        return await _ask(proxy, options.rounds)


async def _enable(url: str) -> None:
    """Switch the cache on as soon as the proxy has made its tables, and wait until it knows."""
    database = await asyncpg.connect(url)
    while True:
        try:
            await database.execute(_ENABLE)
            break
        except asyncpg.UndefinedTableError:
            await asyncio.sleep(0.1)
    await database.close()
    await asyncio.sleep(_FOLLOWED_S)


async def _ask(proxy: Sidegate, rounds: int) -> Measured:
    (connection,) = await load.open_connections(proxy.address, 1)
    whole = load.chat_request(proxy.address, stream=False)
    sent = whole.replace(b"\r\n\r\n", b"\r\nCache-Control: no-store\r\n\r\n", 1)
    # Another temperature, or the stream would be made of the whole answer.
    stream = load.chat_request(proxy.address, stream=True).replace(b":0.2", b":0.3")
    kinds = {_HITS[0]: whole, "sent on, whole": sent, _HITS[1]: stream}
    found: Measured = {name: ([], []) for name in kinds}
    for block in range(_BLOCKS + 1):
        for name, data in kinds.items():
            cpu_s, times = proxy.cpu_s(), []
            for _ in range(rounds // _BLOCKS):
                since = time.perf_counter()
                await connection.ask(data)
                times.append((time.perf_counter() - since) * 1000)
            if block:  # the first one warms up
                found[name][0].extend(times)
                found[name][1].append((proxy.cpu_s() - cpu_s) * 1000 / len(times))
    load.close_all([connection])
    return found


def main(options: argparse.Namespace) -> int:
    print(TARGETS)
    worst = 0.0
    for name, (times, cpu) in asyncio.run(measured(options)).items():
        waited, spent = statistics.median(times), statistics.median(cpu)
        worst = max(worst, waited) if name in _HITS else worst
        print(f"{name:16} client waits {waited:6.2f} ms at the median, processor of the proxy {spent:5.2f} ms")
    return 0 if worst < MOST_MS else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.cache", description=__doc__.split("\n\n")[0])
    made.add_argument("--rounds", type=int, default=500, help="requests of each kind (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
