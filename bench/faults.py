"""Everything at once on two replicas: kill -9, cut connections, a frozen PostgreSQL, reloads, and a foreign trigger.

Both replicas start on an empty database, so that both migrate it. Under load, a fault at random every other second: a
replica is killed and started again, its connections to PostgreSQL are cut some times in a row, PostgreSQL stands still
for up to three seconds, or a replica reloads its configuration in the middle of streams. All the time a trigger on
`request_traces` raises P0001 for every twelfth trace: these must become dead letters, charged, and nothing may wait for
them. At the end the trigger is dropped and `sidegate dead-letters retry` stores them; no quota may change by that.

The laws are those of `bench.fleet`, and the ledger of the tight caller stays within its limit. Run it with
`python -m bench.faults`; `--help` tells the knobs, `--seed` repeats the decisions.
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench.billing import CHAT, RESPONSES, TEXT, Ask, Pace, billing_provider
from bench.fleet import Accounts, Fleet, set_limits
from bench.postgres import StoppablePostgres
from tests.db.faulty_link import FaultyLink

ROOMY, TIGHT = ("roomy", "a"), ("tight", "b")
MAXIMUM = 40
TRIGGER = (
    """
CREATE FUNCTION foreign_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF abs(hashtext(NEW.id::text)) % 12 = 0 THEN RAISE EXCEPTION 'not this one'; END IF;
    RETURN NEW;
END $$
""",
    "CREATE TRIGGER foreign_rule BEFORE INSERT ON request_traces FOR EACH ROW EXECUTE FUNCTION foreign_rule()",
)
CHARGED = "SELECT user_id, current_tokens_today, current_cost_today FROM user_quotas ORDER BY user_id"
PROVES = 12
"""So many requests at the end to each replica: a record that is refused alone needs another that is not."""


@dataclass
class Run:
    options: argparse.Namespace
    fleet: Fleet
    postgres: StoppablePostgres
    link: FaultyLink
    dice: random.Random
    asks: list[Ask] = field(default_factory=list)

    async def go(self) -> None:
        until = time.monotonic() + self.options.seconds
        running: set[asyncio.Task[Ask]] = set()
        faults = asyncio.create_task(self._faults(until - 3))
        while time.monotonic() < until:
            await asyncio.sleep(1 / self.options.rate)
            running.add(asyncio.create_task(self._ask().go(self.dice.choice(self.fleet.proxies).address)))
        await faults
        await asyncio.gather(*running)
        for proxy in self.fleet.proxies:
            for _ in range(PROVES):
                ask = Ask(f"faults-{len(self.asks)}", *ROOMY, CHAT, {"max_tokens": 4})
                self.asks.append(ask)
                await ask.go(proxy.address)
        await self.fleet.settle()

    def _ask(self) -> Ask:
        path = self.dice.choice((CHAT, CHAT, TEXT, RESPONSES))
        members: dict[str, Any] = {"stream": self.dice.random() < 0.6}
        if self.dice.random() < 0.8:
            members["max_output_tokens" if path == RESPONSES else "max_tokens"] = MAXIMUM
        leaves_after_s = self.dice.uniform(0.01, 0.4) if self.dice.random() < 0.15 else None
        ask = Ask(f"faults-{len(self.asks)}", *self.dice.choice((ROOMY, TIGHT)), path, members, leaves_after_s)
        self.asks.append(ask)
        return ask

    async def _faults(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self.dice.uniform(1, 3))
            what, proxy = (
                self.dice.choice(("kill", "kill", "cut", "freeze", "reload")),
                self.dice.choice(self.fleet.proxies),
            )
            print(f"  {until - time.monotonic():5.1f} s to go: {what}", flush=True)
            if what == "kill":
                await asyncio.to_thread(proxy.kill9)
                await asyncio.to_thread(proxy.restart)
            elif what == "cut":
                for _ in range(self.dice.randrange(1, 6)):
                    await self.link.down()
                    await self.link.up()
                    await asyncio.sleep(self.dice.uniform(0, 0.3))
            elif what == "freeze":
                await self.postgres.signal(signal.SIGSTOP)
                await asyncio.sleep(self.dice.uniform(0.2, 3))
                await self.postgres.signal(signal.SIGCONT)
            else:
                proxy.process.send_signal(signal.SIGHUP)


def retry(url: str) -> str:
    """Store the dead letters as an operator does; return what the command says at its end."""
    command = [Path(sys.executable).with_name("sidegate"), "dead-letters", "retry"]
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"], "DATABASE_URL": url}, capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).splitlines()[-1]


async def main(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    limit = int(options.rate * options.seconds * 6)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        postgres = StoppablePostgres(directory)
        await postgres.start()
        stack.push_async_callback(postgres.stop)
        link = FaultyLink(postgres.url)
        await link.up()
        stack.push_async_callback(link.down)
        provider = billing_provider(Pace(0.3, silent=0.1))
        stack.callback(provider.stop)
        fleet = Fleet(directory, provider, link.url, 2)
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        connection = await asyncpg.connect(postgres.url)
        stack.push_async_callback(connection.close)
        await set_limits(connection, ROOMY, tokens=10_000_000)
        await set_limits(connection, TIGHT, tokens=limit)
        for statement in TRIGGER:
            await connection.execute(statement)
        run = Run(options, fleet, postgres, link, random.Random(options.seed))
        await run.go()
        overspend = fleet.metric("sidegate_quota_overspend_units_total")
        lost = fleet.metric("sidegate_records_lost_total")
        await fleet.stop()
        letters = await connection.fetchval("SELECT count(*) FROM trace_dead_letters")
        before = await connection.fetch(CHARGED)
        await connection.execute("DROP TRIGGER foreign_rule ON request_traces")
        said = await asyncio.to_thread(retry, postgres.url)
        print(f"{len(run.asks)} requests; {letters} dead letters: {said}")
        accounts = await Accounts.read(connection, run.asks, provider)
        broken = accounts.broken()
        if before != await connection.fetch(CHARGED):
            broken.append("the quotas changed as dead letters were stored")
        if said != f"stored {letters}, refused 0" or not letters:
            broken.append(f"{letters} dead letters: {said}")
        if accounts.billed(TIGHT)[0] > limit:
            broken.append(f"{TIGHT}: ledger {accounts.billed(TIGHT)[0]} above the limit {limit}")
        broken += [f"{name}: {count}" for name, count in (("overspend", overspend), ("records lost", lost)) if count]
        for caller in (ROOMY, TIGHT):
            print(f"  {accounts.line(caller)}")
    print("\n".join(f"  BROKEN  {line}" for line in broken) or "  every law holds")
    return 1 if broken else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.faults", description=__doc__.split("\n\n")[0])
    made.add_argument("--seconds", type=float, default=60.0, help="of load and faults (%(default)s)")
    made.add_argument("--rate", type=float, default=12.0, help="requests per second, of both together (%(default)s)")
    made.add_argument("--seed", type=int, default=random.randrange(10**6), help="of all decisions")
    return made


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
