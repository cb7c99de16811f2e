"""Crash, cut and starve a running Sidegate, then count: is every accepted request recorded exactly once, and right?

2,000 requests, streaming and not, 32 at a time; every fifth client walks away in the middle; the proxy is killed with
SIGKILL five times and PostgreSQL is stopped for a minute while requests go on. The provider keeps a ledger of its own,
keyed by a name that each try carries. Afterwards the traces are read over the API and held against the ledger and
against what the clients saw. The laws are in `bench.laws`; the first broken one ends the run with exit code 1.

Run it with `python -m bench.chaos`; `--help` tells the knobs, `--seed` repeats the clients' decisions.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from bench.laws import Try, judge
from bench.postgres import StoppablePostgres
from tests.fakes.endpoints import default_answer
from tests.fakes.provider import Call, Provider, give
from tests.fakes.sidegate import Sidegate
from tests.fakes.wire import Cut, Wire, post

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/completions")
TIMEOUT_S = 60.0


@dataclass
class Chaos:
    """One run. `tries` grows by one entry per request that reached a socket of the proxy."""

    options: argparse.Namespace
    provider: Provider
    proxy: Sidegate
    postgres: StoppablePostgres
    dice: random.Random
    tries: list[Try] = field(default_factory=list)
    started: int = 0
    """Logical requests taken up so far."""
    log: list[str] = field(default_factory=list)
    begun_at: float = field(default_factory=time.monotonic)

    def note(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun_at:6.1f} s  {text}", flush=True)

    async def run(self) -> None:
        """Play everything and return when the proxy stands again and its journal is empty."""
        workers = [asyncio.create_task(self._client()) for _ in range(self.options.concurrency)]
        killer = asyncio.create_task(self._kills())
        outage = asyncio.create_task(self._outage())
        await asyncio.gather(*workers, killer, outage)
        self.note(f"{len(self.tries)} tries of {self.started} requests are over")
        await asyncio.to_thread(self._settle)

    async def _client(self) -> None:
        while self.started < self.options.requests:
            self.started += 1
            number = self.started
            for attempt in range(100):
                if await self._try(f"chaos-{number}-{attempt}"):
                    break
                await asyncio.sleep(0.1)

    async def _try(self, case: str) -> bool:
        """Make one try; False when the proxy was not there or died, so that a client would try again."""
        try:
            wire = await Wire.open(self.proxy.address)
        except OSError:
            return False
        one = Try(case, stream=self.dice.random() < 0.5)
        self.tries.append(one)
        walks_away = self.dice.random() < self.options.abort
        limit = self.dice.uniform(0, 0.9) * duration_s(case) if walks_away else TIMEOUT_S
        async with wire:
            try:
                async with asyncio.timeout(limit):
                    await wire.send(self._request(one))
                    await one.receive(wire)
            except TimeoutError:
                one.aborted = True
            except (Cut, ConnectionError):
                one.cut = True
        return not one.cut

    def _request(self, one: Try) -> bytes:
        path = self.dice.choice(PATHS)
        words = "word " * self.dice.randint(1, 300)
        body: dict[str, object] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": words}]}
        body |= {"input": words, "prompt": words}
        if one.stream:
            body["stream"] = True
            if path != "/v1/responses" and self.dice.random() < 0.3:
                body["stream_options"] = {"include_usage": True}
        return post(path, json.dumps(body).encode(), f"X-Sidegate-User: {one.case}", case=one.case)

    async def _kills(self) -> None:
        """Kill the proxy at even distances, and start it again at once."""
        for number in range(self.options.kills):
            at = self.options.requests * (number + 1) // (self.options.kills + 1)
            while self.started < at:
                await asyncio.sleep(0.02)
            self.note(f"kill -9 at request {self.started}")
            await asyncio.to_thread(self._kill_and_restart)

    def _kill_and_restart(self) -> None:
        self.proxy.kill9()
        self.proxy.restart()
        self.note(f"ready again after {self.proxy.ready_after_s:.2f} s")

    async def _outage(self) -> None:
        while self.started < self.options.requests // 6:
            await asyncio.sleep(0.02)
        self.note("PostgreSQL stops")
        await self.postgres.stop()
        await asyncio.sleep(self.options.outage)
        await self.postgres.start()
        self.note("PostgreSQL is back")

    def _settle(self) -> None:
        """Wait until nothing is in flight and the journal is written out."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = self.proxy.metrics()
            if now["sidegate_journal_records"] == 0 and now["sidegate_requests_in_flight"] == 0:
                self.note("the journal is empty")
                return
            time.sleep(0.1)
        raise SystemExit("the journal does not empty: " + self.proxy.ops("/readyz")[1])


def duration_s(case: str) -> float:
    """How long the provider takes for an answer, known to a client that wants to leave before its end."""
    return 0.2 + zlib.crc32(case.encode()) % 2300 / 1000


def provider_with_pace() -> Provider:
    """A provider that takes its time, about 1.3 s per answer, as models do."""
    provider = Provider()

    async def answer(call: Call) -> None:
        body = await call.body()
        prepared = default_answer(call.seen.method, call.seen.target, call.seen.headers, body, call.case)
        total = duration_s(call.case)
        if not prepared.stream:
            await asyncio.sleep(total)
        await give(call, prepared, pause_s=total / len(prepared.pieces) if prepared.stream else 0.0)

    provider.default = answer
    return provider.start()


def all_traces(proxy: Sidegate) -> list[dict[str, object]]:
    """Read every trace over the API, page by page."""
    found: list[dict[str, object]] = []
    cursor = ""
    while True:
        status, page = proxy.api(f"/v1/traces?limit=500{cursor}")
        if status != 200:
            raise SystemExit(f"the API answers {status}: {page}")
        found += page["traces"]
        if not page["nextCursor"]:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def main(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        postgres = StoppablePostgres(directory)
        await postgres.start()
        provider = provider_with_pace()
        (directory / "proxy").mkdir()
        proxy = Sidegate(directory / "proxy", provider.base_url, postgres.url, by_script=True)
        try:
            proxy.start()
            chaos = Chaos(options, provider, proxy, postgres, dice)
            await chaos.run()
            broken = judge(chaos.tries, provider, all_traces(proxy))
        finally:
            proxy.stop()
            await postgres.stop()
            provider.stop()
    return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=2000, help="logical requests (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=32, help="clients at once (%(default)s)")
    parser.add_argument("--abort", type=float, default=0.2, help="part of the clients that walk away (%(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="times that the proxy is killed (%(default)s)")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without PostgreSQL (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the clients' decisions")
    sys.exit(asyncio.run(main(parser.parse_args())))
