"""Let a crowd ask for more than there is, on several replicas at once, and count what is served.

200 requests at the same moment over four replicas, and a limit worth 50 of them, by tokens or by money: whole answers
and streams of every operation, with callers who leave, answers without figures, several choices, no maximum, and a
caller that was never seen. In the exact cases every request uses all of its reservation; there, 50 must be served, no
more and no fewer. Then the replicas are killed with SIGKILL at random while a crowd works through a limit.
Afterwards the laws of `bench.fleet` must hold, and:

    the ledger and what is charged stay within the limit
    nobody is told that the day is used up while there is room: what is left at the end is less than one more request
    needs; what running requests hold for longer than `quota.max_wait_ms` is refused for some seconds only

Run it with `python -m bench.crowd`; `--help` tells the knobs. Exit code 1: a law is broken.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench.billing import CHAT, EMBEDDINGS, RESPONSES, TEXT, Ask, Pace, billing_provider
from bench.fleet import Accounts, Caller, Fleet, set_limits
from bench.postgres import StoppablePostgres
from proxy.config.quota import Quota
from proxy.config.schema import Limits, Prices
from proxy.db import migrate
from proxy.nouns.holds import Bound
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.quota.estimate import bound
from proxy.upstream.pricing import load
from tests.fakes.provider import Provider

WORTH = 50
MAXIMUM = 18


@dataclass(frozen=True)
class Scene:
    """One crowd. `exact`: every request uses all that is reserved for it."""

    name: str
    path: str = CHAT
    members: dict[str, Any] = field(default_factory=dict)
    by: str = "tokens"
    exact: bool = False
    silent: float = 0.0
    leaves: float = 0.0
    is_new: bool = False


def _scenes() -> list[Scene]:
    chat, text = {"max_tokens": MAXIMUM}, {"max_tokens": MAXIMUM}
    responses = {"max_output_tokens": MAXIMUM}
    stream = {"stream": True}
    return [
        Scene("exact tokens", members=chat, exact=True),
        Scene("exact tokens, streams", members=chat | stream, exact=True),
        Scene("exact money", members=chat, by="money", exact=True),
        Scene("exact money, streams", members=chat | stream, by="money", exact=True),
        Scene("exact, 3 choices", members=chat | {"n": 3}, exact=True),
        Scene("exact, responses", path=RESPONSES, members=responses | stream, exact=True),
        Scene("exact, completions", path=TEXT, members=text | stream, exact=True),
        Scene("exact, embeddings", path=EMBEDDINGS, by="money", exact=True),
        Scene("exact, a new caller", members=chat, exact=True, is_new=True),
        Scene("roomy maximum", members={"max_tokens": 200}),
        Scene("no maximum", members={}),
        Scene("no maximum, streams", members=stream),
        Scene("no maximum, 2 choices, streams", members=stream | {"n": 2}),
        Scene("no figures", members=chat, silent=1.0),
        Scene("no figures, streams", members=chat | stream, silent=1.0),
        Scene("callers leave", members=chat, leaves=0.4),
        Scene("callers leave streams", members=chat | stream, leaves=0.4),
        Scene("callers leave streams without a maximum", members=stream, leaves=0.4),
    ]


def reserved(path: str, members: dict[str, Any]) -> Bound:
    """What the proxy reserves for a request at first."""
    body = Ask("", "", "", path, dict(members)).request().partition(b"\r\n\r\n")[2]
    operation = match("POST", path, False)
    made = bound(
        operation,
        parse_json(body, operation, limits=Limits(), force_stream_usage=True),
        len(body),
        load(None, Prices()),
        Quota(),
    )
    assert made is not None
    return made


@dataclass
class Crowd:
    options: argparse.Namespace
    fleet: Fleet
    provider: Provider
    pace: Pace
    connection: "asyncpg.Connection[Any]"
    dice: random.Random
    asks: list[Ask] = field(default_factory=list)

    async def play(self, number: int, scene: Scene) -> tuple[Scene, Caller, list[Ask], tuple[int | None, int | None]]:
        """Let one crowd in; return who asked, and the limit in tokens or nano-dollars."""
        needs = reserved(scene.path, scene.members)
        self.pace.most = MAXIMUM
        self.pace.silent = scene.silent
        self.pace.input_tokens = {scene.path: needs.input_tokens} if scene.exact else {}
        each = needs.tokens if scene.exact else 12 + MAXIMUM * (scene.members.get("n") or 1)
        worth = needs.cost_nanos if scene.exact else each * 600
        slack = 0 if scene.exact else needs.input_tokens + 200
        tokens = WORTH * each + slack if scene.by == "tokens" else None
        nanos = WORTH * worth + slack * 600 if scene.by == "money" else None
        caller = (f"crowd-{number}", f"scene-{number}")
        await self._limit(caller, tokens, nanos, scene.is_new)
        asks = [self._ask(caller, scene, i) for i in range(self.options.parallel)]
        self.asks += asks
        proxies = self.fleet.proxies
        await asyncio.gather(*(ask.go(proxies[i % len(proxies)].address) for i, ask in enumerate(asks)))
        await self.fleet.settle()
        return scene, caller, asks, (tokens, nanos)

    async def _limit(self, caller: Caller, tokens: int | None, nanos: int | None, is_new: bool) -> None:
        if is_new:  # the limits of its project wait for it
            await set_limits(self.connection, ("nobody", caller[1]), rules={"maxTokensDaily": tokens})
        else:
            dollars = None if nanos is None else f"{nanos / 1e9:.9f}"
            await set_limits(self.connection, caller, tokens=tokens, dollars=dollars)

    def _ask(self, caller: Caller, scene: Scene, number: int) -> Ask:
        leaves_after_s = self.dice.uniform(0.02, 0.6) if self.dice.random() < scene.leaves else None
        return Ask(f"{caller[0]}-{number}", *caller, scene.path, dict(scene.members), leaves_after_s)

    def judge(
        self,
        accounts: Accounts,
        scene: Scene,
        caller: Caller,
        asks: Sequence[Ask],
        limit: tuple[int | None, int | None],
    ) -> list[str]:
        """Print one line and return what is broken."""
        statuses = Counter(ask.status or "left" for ask in asks)
        billed, charged = accounts.billed(caller), accounts.settled(caller)
        known = [(b, c, most) for b, c, most in zip(billed, charged, limit, strict=True) if most is not None]
        b, c, most = known[0]
        waits = [ask.ended_at - ask.sent_at for ask in asks if ask.status == 429]
        waited = f"{median(waits):.1f} s, at most {max(waits):.1f} s" if waits else "-"
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items(), key=str))
        print(f"  {scene.name:40} {counts}; ledger {b}, charged {c}, limit {most}; refused after {waited}", flush=True)
        found = []
        if b > most or c > most:
            found.append(f"{scene.name}: above the limit")
        if scene.exact and statuses[200] != WORTH:
            found.append(f"{scene.name}: {statuses[200]} served, {WORTH} fit")
        if set(statuses) - {200, 429, "left"}:
            found.append(f"{scene.name}: {counts}")
        needs = reserved(scene.path, scene.members)
        least = needs.tokens if limit[0] is not None else needs.cost_nanos
        if needs.can_be_capped:
            least = needs.input_tokens + 16 if limit[0] is not None else needs.input_nanos + 16 * 600
        reserved_only = sum(ask.code == "rate_limit_exceeded" for ask in asks)
        if statuses[429] > reserved_only and most - c >= least:
            found.append(f"{scene.name}: {most - c} left, {least} would have been enough")
        return found

    async def kill(self, kills: int) -> list[str]:
        """Kill replicas while a crowd works through a limit; then ask until nothing is left."""
        self.pace.most, self.pace.silent, self.pace.input_tokens = None, 0.1, {}
        caller: Caller = ("survivor", "killed")
        limit = self.options.requests * 60
        await set_limits(self.connection, caller, tokens=limit)
        begun = time.monotonic()
        started = 0

        async def work() -> None:
            nonlocal started
            while started < self.options.requests:
                started += 1
                members = {"max_tokens": 60, "stream": self.dice.random() < 0.5}
                leaves_after_s = self.dice.uniform(0.02, 0.6) if self.dice.random() < 0.1 else None
                self.asks.append(ask := Ask(f"kill-{started}", *caller, CHAT, members, leaves_after_s))
                await ask.go(self.dice.choice(self.fleet.proxies).address)
                if ask.cut or ask.status == 429:
                    await asyncio.sleep(0.1)

        async def slay() -> None:
            for number in range(kills):
                while started < self.options.requests * (number + 1) // (kills + 1):
                    await asyncio.sleep(0.02)
                victim = self.dice.choice(self.fleet.proxies)
                await asyncio.to_thread(victim.kill9)
                await asyncio.to_thread(victim.restart)

        await asyncio.gather(slay(), *(work() for _ in range(40)))
        print(f"  {kills} kills in {time.monotonic() - begun:.0f} s under load", flush=True)
        await self.fleet.settle()
        last: list[Ask] = []
        while not last or last[-1].status != 429:
            members = {"max_tokens": 60}
            last.append(Ask(f"after-{len(last)}", *caller, CHAT, members))
            await last[-1].go(self.dice.choice(self.fleet.proxies).address)
        self.asks += last
        await self.fleet.settle()
        accounts = await Accounts.read(self.connection, self.asks, self.provider)
        (billed, _), (charged, _) = accounts.billed(caller), accounts.settled(caller)
        print(f"  {accounts.line(caller)}; limit {limit}; then {len(last) - 1} more were served", flush=True)
        found = []
        if charged > limit:
            found.append(f"charged {charged} of {limit}")
        if billed > charged:
            found.append(f"ledger {billed} above what is charged, {charged}")
        if limit - charged >= reserved(CHAT, {"max_tokens": 16}).tokens:
            found.append(f"refused although {limit - charged} tokens are left")
        return found


async def main(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)
        url = options.database
        if url is None:
            postgres = StoppablePostgres(directory)
            await postgres.start()
            stack.push_async_callback(postgres.stop)
            url = postgres.url
        pace = Pace(0.3)
        provider = billing_provider(pace)
        stack.callback(provider.stop)
        connection = await asyncpg.connect(options.direct or url, statement_cache_size=0)
        stack.push_async_callback(connection.close)
        await migrate.up(connection)
        fleet = Fleet(directory, provider, url, options.replicas)
        stack.push_async_callback(fleet.stop)
        await fleet.start()
        crowd = Crowd(options, fleet, provider, pace, connection, random.Random(options.seed))
        chosen = [scene for scene in _scenes() if options.scene in scene.name]
        played = [await crowd.play(number, scene) for number, scene in enumerate(chosen)]
        accounts = await Accounts.read(connection, crowd.asks, provider)
        broken = [line for one in played for line in crowd.judge(accounts, *one)]
        if options.kills:
            broken += await crowd.kill(options.kills)
        overspend = fleet.metric("sidegate_quota_overspend_units_total")
        await fleet.stop()
        broken += (await Accounts.read(connection, crowd.asks, provider)).broken()
        broken += [f"overspend counted: {overspend}"] if overspend else []
    print("\n".join(f"  BROKEN  {line}" for line in broken) or "  every law holds")
    return 1 if broken else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bench.crowd", description=__doc__.split("\n\n")[0])
    made.add_argument("--parallel", type=int, default=200, help="requests at once (%(default)s)")
    made.add_argument("--replicas", type=int, default=4, help="proxies (%(default)s)")
    made.add_argument("--scene", default="", help="only crowds with this in their name")
    made.add_argument("--kills", type=int, default=10, help="replicas killed in the last part (%(default)s)")
    made.add_argument("--requests", type=int, default=1500, help="of the last part (%(default)s)")
    made.add_argument("--database", help="DSN for the proxies, for example of PgBouncer; default: a private PostgreSQL")
    made.add_argument("--direct", help="DSN for the benchmark's own questions, where it is another")
    made.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the callers' decisions")
    return made


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser().parse_args())))
