"""Measure what quotas cost: microseconds in the path of a request, and statements that PostgreSQL sees.

First the path alone: bound, reserve, settle and headers for a usual chat request with a lease in hand, in this process,
without a network. Then a running proxy at a steady rate: all that it says to PostgreSQL passes through a relay that
reads along and counts what is executed: statements about quotas (take, renew, settle and give back leases), and others.

Run it with `python -m bench.quota_cost`; `--help` tells the knobs. Exit code 1: a target is missed.
"""

import argparse
import asyncio
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench import load
from bench.run import Child
from proxy.config import schema
from proxy.config.quota import Quota
from proxy.db.embedded import EmbeddedPostgres
from proxy.exchange import Principal
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.quota.callers import Callers
from proxy.quota.estimate import bound
from proxy.quota.lease import Lease
from proxy.quota.ledger import Balance
from proxy.quota.outage import Outage
from proxy.quota.reservations import Reservations
from proxy.quota.supply import Supply
from proxy.quota.tally import QuotaTally
from proxy.upstream.pricing import load as load_prices
from tests.fakes.sidegate import Sidegate

TARGETS = "targets: median < 50 us, fewer than one quota statement for 50 requests"
MOST_US, LEAST_REQUESTS = 50.0, 50.0
_PATH = "/v1/chat/completions"
_QUOTA_WORDS = (b"sidegate_acquire", b"sidegate_renew", b"sidegate_settle", b"sidegate_release")
_STARTUP, _NO_LENGTH = 196608, 4


def in_path_us(rounds: int) -> list[float]:
    """Return the time of each round in microseconds."""
    settings, clock = Quota(), time.monotonic
    tally, callers = QuotaTally(), Callers(settings)
    outage = Outage(settings, tally, clock)
    outage.note_answer()
    nobody = _Nobody()
    supply = Supply(settings, ledger=nobody, book=nobody, outage=outage, tally=tally, heard=nobody.heard, clock=clock)
    quotas = Reservations(settings, callers=callers, supply=supply, outage=outage, tally=tally, clock=clock)
    caller = callers.get("alice", "shop", clock())
    plenty = 10**12
    caller.account.leases.append(Lease("3f0c", 1, clock() + 86_400, plenty, plenty))
    reset_at = time.time() + 86_400
    room = (plenty, plenty, 0, 0, plenty, plenty, 0, 0)
    caller.balance = Balance(1, _utc(reset_at), 86_400.0, *room, 1, False, None)
    prices, operation = load_prices(None, schema.Prices()), match("POST", _PATH, False)
    body = load.chat_request(("127.0.0.1", 80), stream=False).partition(b"\r\n\r\n")[2]
    request = parse_json(body, operation, limits=schema.Limits(), force_stream_usage=True)
    who, times = Principal("alice", "shop", "header"), []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        most = bound(operation, request, len(body), prices, settings)
        assert most is not None
        held = quotas.reserve_now(who, most)
        assert held is not None
        held.held()
        quotas.headers(who)
        held.settle(50, 20_000)
        times.append((time.perf_counter_ns() - begun) / 1000)
    return times


class _Nobody:
    """Stands where the ledger and the journal would be: with a lease in hand nobody is asked."""

    async def acquire(self, *_: object) -> object:
        raise AssertionError("a lease was asked for")

    def begin(self, *_: object) -> None:
        raise AssertionError("a lease was asked for")

    def end(self, *_: object) -> None:
        raise AssertionError("a lease was given back")

    def heard(self, *_: object) -> None:
        raise AssertionError("a lease was got")


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Counting:
    """A TCP port in front of PostgreSQL's unix socket that counts statements by what they are about."""

    def __init__(self, url: str) -> None:
        self._path = parse_qs(urlsplit(url).query)["host"][0] + "/.s.PGSQL.5432"
        self._parts = urlsplit(url)
        self.statements: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}", query="").geturl()

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._path)
        pumps = {asyncio.create_task(self._forth(reader, back)), asyncio.create_task(_pump(there, writer))}
        self._tasks |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for side in (writer, back):
            side.transport.abort()

    async def _forth(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass messages on, one by one; what comes before the startup message has no type."""
        started, text = False, b""
        try:
            while True:
                head = await source.readexactly(5 if started else 4)
                size = struct.unpack("!I", head[-4:])[0] - _NO_LENGTH
                body = await source.readexactly(size)
                if started:
                    text = self._read(head[:1], body, text)
                else:
                    started = struct.unpack("!I", body[:4])[0] == _STARTUP
                sink.write(head + body)
                await sink.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _read(self, kind: bytes, body: bytes, text: bytes) -> bytes:
        """Count a query or an execution; return the statement that was parsed last."""
        if kind == b"P":
            return body.partition(b"\0")[2]
        if kind in (b"E", b"Q"):
            said = body if kind == b"Q" else text
            name = next((word.decode().removeprefix("sidegate_") for word in _QUOTA_WORDS if word in said), "other")
            self.statements[name] += 1
        return text


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        return


async def statements(options: argparse.Namespace) -> tuple[int, Counter[str]]:
    """Return how many requests were served, and the statements that they took."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        server = EmbeddedPostgres(directory / "data")
        counting = Counting(await server.start())
        stack.push_async_callback(server.stop)
        url = await counting.start()
        stack.push_async_callback(counting.stop)
        provider = await asyncio.to_thread(Child.start, "bench.upstream")
        stack.push_async_callback(asyncio.to_thread, provider.stop)
        home = directory / "proxy"
        home.mkdir()
        upstream = f"http://127.0.0.1:{provider.address[1]}/v1"
        limits = {"DEFAULT_QUOTA_TOKENS_DAILY": str(options.limit)}
        proxy = Sidegate(home, upstream, url, limits, by_script=True)
        await asyncio.to_thread(proxy.start)
        stack.push_async_callback(asyncio.to_thread, proxy.stop)
        await load.Pacer(proxy.address, []).run(options.rate, 2, 0.0)
        counting.statements.clear()
        served: list[float] = []
        await load.Pacer(proxy.address, served).run(options.rate, options.seconds, 0.0)
        await asyncio.sleep(1)
        return len(served), counting.statements.copy()


def main(options: argparse.Namespace) -> int:
    print(TARGETS)
    in_path_us(500)
    times = in_path_us(options.rounds)
    median = statistics.median(times)
    print(f"in the path: median {median:.1f} us, p99 {statistics.quantiles(times, n=100)[98]:.1f} us")
    requests, counted = asyncio.run(statements(options))
    about = sum(count for name, count in counted.items() if name != "other")
    shown = ", ".join(f"{count} {name}" for name, count in counted.most_common())
    each = requests / about
    print(f"{requests} requests at {options.rate}/s: {about} quota statements, one for {each:.0f} requests ({shown})")
    return 0 if median < MOST_US and each > LEAST_REQUESTS else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.quota_cost", description=__doc__.split("\n\n")[0])
    made.add_argument("--rounds", type=int, default=5000, help="of the path alone (%(default)s)")
    made.add_argument("--rate", type=int, default=200, help="requests per second (%(default)s)")
    made.add_argument("--seconds", type=float, default=30.0, help="of load (%(default)s)")
    made.add_argument("--limit", type=int, default=20_000_000, help="tokens a day of the one caller (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
