"""Take PostgreSQL away from running replicas, and hold what they let pass against the bound that is documented.

Replicas under steady load of whole answers and streams; some callers leave in the middle, some answers come without
figures. PostgreSQL stops for a while: it refuses (`stop`), stands still (`freeze`: SIGSTOP to the whole server) or
swallows what is sent to it (`silent`). Each rule of `onDatabaseOutage` is a project of its own, with one caller whose
limit is roomy and one whose limit ends during the run. Afterwards the laws of `bench.fleet` must hold, and:

    closed, lease     ledger <= limit, whatever happened
    capped:<dollars>  ledger <= limit + dollars for each replica, in money
    open              nothing is refused while PostgreSQL is away
    always            a refusal is 503 `quota_unavailable` with `Retry-After` while PostgreSQL is away, and 429
                      `insufficient_quota` otherwise; a caller with a roomy limit never gets a 429, and is served again
                      within some seconds

Run it with `python -m bench.outage`; `--help` tells the knobs. Exit code 1: a law is broken.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench.billing import CHAT, INPUT_TOKENS, OUTPUT_NANOS, RESPONSES, TEXT, Ask, Pace, billing_provider
from bench.fleet import Accounts, Caller, Fleet, set_limits
from bench.postgres import StoppablePostgres
from proxy.db import migrate
from tests.db.faulty_link import FaultyLink

MODES = ("closed", "lease", "capped:0.002", "open")
KINDS = ("stop", "freeze", "silent")
MAXIMUM = 40
MOST = INPUT_TOKENS + 80 + MAXIMUM
"""Above the reservation of any request here."""


@dataclass
class Outage:
    """One run: who asks, and what became of it."""

    options: argparse.Namespace
    fleet: Fleet
    dice: random.Random
    callers: dict[Caller, int]
    """Limit in tokens of each."""
    asks: list[Ask] = field(default_factory=list)
    away: tuple[float, float] = (0.0, 0.0)
    begun_at: float = field(default_factory=time.monotonic)

    def note(self, text: str) -> None:
        print(f"{time.monotonic() - self.begun_at:6.1f} s  {text}", flush=True)

    async def run(self, stop: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]) -> None:
        load = asyncio.create_task(self._load())
        await asyncio.sleep(self.options.before)
        self.note(f"PostgreSQL goes: {self.options.kind}")
        gone_at = time.monotonic()
        await stop()
        await asyncio.sleep(self.options.seconds - (time.monotonic() - gone_at))
        await start()
        self.away = gone_at, time.monotonic()
        self.note("PostgreSQL is back")
        await asyncio.sleep(self.options.noticed + self.options.before)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        await self.fleet.settle()
        self.note(f"{len(self.asks)} requests are over, the journals are empty")

    async def _load(self) -> None:
        """Ask at a steady rate, whatever the answers do; when cancelled, wait for those that run."""
        running: set[asyncio.Task[Ask]] = set()
        due = time.monotonic()
        try:
            while True:
                due += 1 / self.options.rate
                await asyncio.sleep(max(due - time.monotonic(), 0))
                ask = self._ask()
                self.asks.append(ask)
                task = asyncio.create_task(ask.go(self.dice.choice(self.fleet.proxies).address))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            await asyncio.gather(*running)

    def _ask(self) -> Ask:
        user, project = self.dice.choice(list(self.callers))
        path = self.dice.choice((CHAT, CHAT, TEXT, RESPONSES))
        members: dict[str, Any] = {"stream": self.dice.random() < 0.5}
        if self.dice.random() < 0.8:
            members["max_output_tokens" if path == RESPONSES else "max_tokens"] = MAXIMUM
        leaves_after_s = self.dice.uniform(0.01, 0.4) if self.dice.random() < 0.15 else None
        return Ask(f"outage-{len(self.asks)}", user, project, path, members, leaves_after_s)

    def broken(self, accounts: Accounts) -> list[str]:
        """Return the breaches of what is documented about each rule."""
        found = accounts.broken()
        for caller, limit in self.callers.items():
            found += self._broken_bound(accounts, caller, limit)
            mine = [ask for ask in self.asks if (ask.user, ask.project) == caller and ask.status]
            found += [f"{ask.case} {caller}: {ask.status} {ask.code!r}" for ask in mine if not self._is_known(ask)][:4]
            if caller[0] == "roomy":
                found += [f"{ask.case} {caller}: a phantom {ask.status}" for ask in mine if self._is_phantom(ask)][:4]
        return found

    def _broken_bound(self, accounts: Accounts, caller: Caller, limit: int) -> list[str]:
        rule = _rule(caller[1])
        tokens, nanos = accounts.billed(caller)
        if rule in ("closed", "lease") and tokens > limit:
            return [f"{caller}: ledger {tokens} above the limit {limit}"]
        if rule.startswith("capped"):
            most = limit * OUTPUT_NANOS + len(self.fleet.proxies) * round(float(rule.partition(":")[2]) * 1e9)
            return [f"{caller}: ledger {nanos} nanos above {most}"] if nanos > most else []
        return []

    def _is_known(self, ask: Ask) -> bool:
        """Tell whether an answer is one that the documentation names for the time when it came."""
        if ask.status == 503:
            is_timely = self.away[0] <= ask.ended_at and ask.sent_at <= self.away[1] + self.options.noticed
            return ask.code == "quota_unavailable" and ask.retry_after is not None and is_timely
        return ask.status == 200 or (ask.status == 429 and ask.code == "insufficient_quota")

    def _is_phantom(self, ask: Ask) -> bool:
        """Tell whether somebody was refused for whom there is room."""
        if ask.status == 429:
            return True
        is_open = _rule(ask.project) == "open"
        is_over = ask.sent_at > self.away[1] + self.options.noticed
        return ask.status == 503 and (is_open or is_over)

    def table(self, accounts: Accounts) -> None:
        for caller, limit in self.callers.items():
            during = Counter(
                ask.status
                for ask in self.asks
                if (ask.user, ask.project) == caller
                and ask.status
                and self.away[0] + self.options.noticed < ask.sent_at < self.away[1]
            )
            print(f"  {accounts.line(caller)}; limit {limit}; while away {dict(during)}")


def _rule(project: str) -> str:
    return project.replace("-at-", ":")


async def main(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        postgres = StoppablePostgres(directory)
        await postgres.start()
        stack.push_async_callback(postgres.stop)
        url, stop, start = await _breakable(postgres, options.kind, stack)
        provider = billing_provider(Pace(0.3, silent=0.1))
        stack.callback(provider.stop)
        async with _connected(postgres.url) as connection:
            await migrate.up(connection)
            callers = await callers_of(connection, options)
        fleet = Fleet(directory, provider, url, options.replicas)
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        run = Outage(options, fleet, random.Random(options.seed), callers)
        await run.run(stop, start)
        overspend = fleet.metric("sidegate_quota_overspend_units_total")
        await fleet.stop()
        async with _connected(postgres.url) as connection:
            accounts = await Accounts.read(connection, run.asks, provider)
        run.table(accounts)
        broken = run.broken(accounts) + ([f"overspend counted: {overspend}"] if overspend else [])
    print("\n".join(f"  BROKEN  {line}" for line in broken) or "  every law holds")
    return 1 if broken else 0


class _connected:
    """A connection of the benchmark's own."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> "asyncpg.Connection[Any]":
        self._connection = await asyncpg.connect(self._url)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


async def callers_of(connection: "asyncpg.Connection[Any]", options: argparse.Namespace) -> dict[Caller, int]:
    """Make two callers of each rule. The tight one's limit is for about the middle of the outage."""
    modes: Sequence[str] = MODES if options.mode == "all" else (options.mode,)
    each = options.rate / (2 * len(modes))
    tight = int(each * (options.before + options.seconds / 2) * MOST / 3)
    callers = {}
    for mode in modes:
        for user, limit in (("roomy", 100 * tight), ("tight", tight)):
            caller = (user, mode.replace(":", "-at-"))
            await set_limits(connection, caller, tokens=limit, rules={"onDatabaseOutage": mode})
            callers[caller] = limit
    return callers


async def _breakable(
    postgres: StoppablePostgres, kind: str, stack: AsyncExitStack
) -> tuple[str, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """Return the DSN for the replicas, and what takes PostgreSQL away and brings it back."""
    if kind == "stop":
        return postgres.url, postgres.stop, postgres.start
    if kind == "freeze":
        return postgres.url, lambda: postgres.signal(signal.SIGSTOP), lambda: postgres.signal(signal.SIGCONT)
    link = FaultyLink(postgres.url)
    await link.up()
    stack.push_async_callback(link.down)

    async def silent() -> None:
        link.silent()

    return link.url, silent, link.up


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.outage", description=__doc__.split("\n\n")[0])
    made.add_argument("--mode", choices=(*MODES, "all"), default="all", help="rule of the projects (%(default)s)")
    made.add_argument("--kind", choices=KINDS, default="stop", help="how PostgreSQL goes away (%(default)s)")
    made.add_argument("--seconds", type=float, default=120.0, help="without PostgreSQL (%(default)s)")
    made.add_argument("--before", type=float, default=5.0, help="seconds of load before, and after (%(default)s)")
    text = (
        "so long after PostgreSQL went, and came back, replicas may be finding out: two timeouts of 2 s (%(default)s)"
    )
    made.add_argument("--noticed", type=float, default=5.0, help=text)
    made.add_argument("--replicas", type=int, default=2, help="proxies (%(default)s)")
    made.add_argument("--rate", type=float, default=30.0, help="requests per second, of all together (%(default)s)")
    made.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the callers' decisions")
    return made


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
