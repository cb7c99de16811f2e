"""Let a day end under running replicas, and see that each request is charged to the window that admitted it.

PostgreSQL's clock alone decides about windows. So a private server runs under libfaketime, some seconds before a
midnight of another day, while the clocks of the proxies and of the machine stay as they are. Requests come at a steady
rate across the boundary, whole answers and streams that begin before it and end after it. Two callers: one with a roomy
limit, and one whose limit is used up before midnight and who must be served again right after it.
Afterwards the laws of `bench.fleet` must hold, and:

    a request that the provider received before midnight belongs to the first window, one that was sent after it to the
    second; `quota_windows` and `user_quotas` are the sums of their traces; the ledger of either window <= the limit
    both windows are as long as their days are: 24 hours, and 23 and 25 on the days when clocks are changed

Needs libfaketime (Debian: apt install libfaketime). Run it with `python -m bench.midnight`; `--help` tells the knobs.
Exit code 1: a law is broken.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg

from bench.billing import CHAT, RESPONSES, Ask, Pace, billing_provider
from bench.fleet import Accounts, Caller, Fleet, set_limits
from proxy.db import migrate
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import prepare

LIBRARY = "/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"
MIDNIGHTS = (
    ("UTC", "2026-06-16"),
    ("Asia/Kolkata", "2026-06-16"),
    ("America/New_York", "2026-03-08"),  # this day has 23 hours
    ("America/New_York", "2026-03-09"),
    ("America/New_York", "2026-11-01"),  # this day has 25
    ("America/New_York", "2026-11-02"),
)
EDGE_S = 0.25
"""What the harness knows of the boundary: PostgreSQL's clock was read over a socket."""
MAXIMUM = 40
TIGHT, ROOMY = 2000, 10_000_000


@dataclass
class Midnight:
    """The first moment of `day` in `zone`."""

    zone: str
    day: str

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.day).replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC)

    @property
    def hours(self) -> tuple[float, float]:
        """Length of the day that ends and of the one that begins."""
        local = datetime.fromisoformat(self.day)
        starts = [
            (local + timedelta(days=shift)).replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC) for shift in (-1, 0, 1)
        ]
        return (starts[1] - starts[0]).total_seconds() / 3600, (starts[2] - starts[1]).total_seconds() / 3600


class ShiftedPostgres:
    """A private server whose clock is `offset` ahead. The data directory is made by the embedded one."""

    def __init__(self, directory: Path, library: str) -> None:
        self._directory = directory
        self._library = library
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    async def make(self) -> None:
        embedded = EmbeddedPostgres(self._directory)
        await embedded.start()
        await embedded.stop()
        self._place = prepare(self._directory)
        self._door = Path(tempfile.mkdtemp(prefix="sidegate-", dir="/tmp"))
        os.chown(self._door, self._place.account.uid, self._place.account.gid)

    async def start(self, offset: timedelta) -> None:
        place = self._place
        environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin", "LD_PRELOAD": self._library}
        environment |= {"FAKETIME": f"{offset.total_seconds():+.3f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        settings = ("listen_addresses=", "timezone=UTC", "max_connections=50", "io_method=sync", "fsync=off")
        command = [str(place.programs / "postgres"), "-D", str(place.data), "-k", str(self._door)]
        command += [word for setting in settings for word in ("-c", setting)]
        log = (self._directory / "server.log").open("ab")
        account = {"user": place.account.uid, "group": place.account.gid, "extra_groups": []}
        as_account: dict[str, Any] = account if os.geteuid() == 0 else {}
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd="/", **as_account)
        log.close()
        self.url = f"postgresql:///postgres?host={self._door}&user={_user()}"
        async with asyncio.timeout(30):
            while True:
                try:
                    await (await asyncpg.connect(self.url)).close()
                    return
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._process.wait, 30)
            self._process = None

    def remove(self) -> None:
        shutil.rmtree(self._door, ignore_errors=True)


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "")


@dataclass
class Run:
    """One boundary."""

    options: argparse.Namespace
    midnight: Midnight
    fleet: Fleet
    dice: random.Random
    boundary_at: float
    """When midnight is, in monotonic seconds of ours."""

    async def load(self) -> list[Ask]:
        """Ask at a steady rate until some seconds after midnight."""
        asks, running = [], []
        due = time.monotonic()
        while due < self.boundary_at + self.options.after:
            due += 1 / self.options.rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            asks.append(self._ask(len(asks)))
            running.append(asyncio.create_task(asks[-1].go(self.dice.choice(self.fleet.proxies).address)))
        await asyncio.gather(*running)
        await self.fleet.settle()
        return asks

    def _ask(self, number: int) -> Ask:
        user = self.dice.choice(("roomy", "tight"))
        path = self.dice.choice((CHAT, RESPONSES))
        members = {"stream": self.dice.random() < 0.7}
        limit = {"max_output_tokens" if path == RESPONSES else "max_tokens": MAXIMUM}
        leaves_after_s = self.dice.uniform(0.01, 1.0) if self.dice.random() < 0.1 else None
        return Ask(f"{self.midnight.day}-{number}", user, "shop", path, {**members, **limit}, leaves_after_s)

    def broken(self, accounts: Accounts, received_at: dict[str, float], windows: list[Any]) -> list[str]:
        found = accounts.broken()
        admitted = {case: int(rows[0]["window"]) for case, rows in accounts.traces.items() if rows[0]["window"]}
        for case, window in admitted.items():
            ask = accounts.asks[case]
            if window == 2 and received_at.get(case, ask.ended_at) < self.boundary_at - EDGE_S:
                found.append(f"{case} was received before midnight and belongs to window 2")
            if window == 1 and ask.sent_at > self.boundary_at + EDGE_S:
                found.append(f"{case} was sent after midnight and belongs to window 1")
        sums: Counter[tuple[str, int]] = Counter()
        billed: Counter[tuple[str, int]] = Counter()
        for case, window in admitted.items():
            trace, entry = accounts.traces[case][0], accounts.ledger.get(case)
            sums[trace["user_id"], window] += trace["tokens"]
            if entry is not None:  # else the caller left before the provider had the request
                billed[trace["user_id"], window] += entry.input_tokens + entry.output_tokens
        for row in windows:
            name, hours = (row["user_id"], row["window_no"]), (row["ends"] - row["starts"]).total_seconds() / 3600
            expected = self.midnight.hours[row["window_no"] - 1]
            if sums[name] != row["tokens"]:
                found.append(f"{name}: the window says {row['tokens']}, its traces {sums[name]}")
            if billed[name] > row["max_tokens"]:
                found.append(f"{name}: ledger {billed[name]} above the limit {row['max_tokens']}")
            if abs(hours - expected) > 1e-9:
                found.append(f"{name}: {hours} hours, not {expected}")
            print(
                f"    window {row['window_no']} of {name[0]:5}: {hours:g} h, {row['tokens']} tokens of"
                f" {row['max_tokens']}, ledger {billed[name]}"
            )
        return found + self._phantoms(accounts)

    def _phantoms(self, accounts: Accounts) -> list[str]:
        """Refusals although there was room."""
        found = []
        late = 0
        for ask in accounts.asks.values():
            if ask.status in (200, 0):
                late += ask.user == "tight" and ask.status == 200 and ask.sent_at > self.boundary_at
            elif ask.status != 429 or ask.user == "roomy":
                found.append(f"{ask.case} of {ask.user}: {ask.status} {ask.code}")
        return found if late else [*found, "the caller whose limit was used up was not served after midnight"]


_WINDOWS = """
SELECT user_id, window_no, tokens, max_tokens, sidegate_day_start(project_id, started_at) AS starts, ended_at AS ends
FROM quota_windows
UNION ALL
SELECT user_id, window_no, current_tokens_today, max_tokens_daily, window_started_at, reset_at FROM user_quotas
ORDER BY 1, 2
"""


async def one(options: argparse.Namespace, midnight: Midnight, postgres: ShiftedPostgres, seed: int) -> bool:
    """Play one boundary; True when a law is broken."""
    offset = midnight.at - timedelta(seconds=options.before) - datetime.now(UTC)
    await postgres.start(offset)
    provider = billing_provider(Pace(1.0, silent=0.1))
    try:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await migrate.up(connection)
        callers: dict[Caller, int] = {("roomy", "shop"): ROOMY, ("tight", "shop"): TIGHT}
        for caller, limit in callers.items():
            await set_limits(connection, caller, tokens=limit, zone=midnight.zone)
        with tempfile.TemporaryDirectory() as directory:
            fleet = Fleet(Path(directory), provider, postgres.url, options.replicas)
            await fleet.start()
            asked_at = time.monotonic()
            now = await connection.fetchval("SELECT clock_timestamp()")
            boundary_at = (asked_at + time.monotonic()) / 2 + (midnight.at - now).total_seconds()
            run = Run(options, midnight, fleet, random.Random(seed), boundary_at)
            left_s = boundary_at - time.monotonic()
            print(f"  {midnight.zone} {midnight.day}: midnight in {left_s:.1f} s, days of {midnight.hours} hours")
            asks = await run.load()
            await fleet.stop()
        accounts = await Accounts.read(connection, asks, provider)
        received_at = {(seen.value(b"x-case-id") or b"").decode(): seen.arrived_at for seen in provider.requests}
        broken = run.broken(accounts, received_at, await connection.fetch(_WINDOWS))
        for caller in callers:
            print(f"    {accounts.line(caller)}")
        await connection.close()
    finally:
        provider.stop()
        await postgres.stop()
    print("\n".join(f"    BROKEN  {line}" for line in broken[:20]) or "    every law holds", flush=True)
    return bool(broken)


async def main(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    if not Path(options.library).exists():
        print(f"there is no {options.library}: apt install libfaketime, or tell its place with --library")
        return 2
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        postgres = ShiftedPostgres(directory, options.library)
        await postgres.make()
        stack.callback(postgres.remove)
        chosen = [Midnight(*names) for names in MIDNIGHTS if options.zone in ("all", names[0])]
        broken = [await one(options, midnight, postgres, options.seed) for midnight in chosen]
    return 1 if any(broken) else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.midnight", description=__doc__.split("\n\n")[0])
    zones = sorted({zone for zone, _ in MIDNIGHTS})
    made.add_argument("--zone", choices=(*zones, "all"), default="all", help="whose midnight (%(default)s)")
    made.add_argument("--before", type=float, default=60.0, help="seconds from PostgreSQL's start (%(default)s)")
    made.add_argument("--after", type=float, default=10.0, help="seconds of load after midnight (%(default)s)")
    made.add_argument("--replicas", type=int, default=2, help="proxies (%(default)s)")
    made.add_argument("--rate", type=float, default=30.0, help="requests per second, of all together (%(default)s)")
    made.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the callers' decisions")
    default = LIBRARY.format(machine=os.uname().machine)
    made.add_argument("--library", default=default, help="where libfaketime is (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
