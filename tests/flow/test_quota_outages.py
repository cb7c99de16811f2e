"""PostgreSQL away from running replicas: what is served keeps to the bound of each rule, and nothing is lost.

The short form of `python -m bench.outage`: PostgreSQL falls silent, then refuses, then is back. And one that is slow.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from bench.billing import Pace, billing_provider
from bench.fleet import Accounts, Fleet
from bench.outage import Outage, callers_of, parser
from tests.db.faulty_link import faulty_link
from tests.fakes.fixtures import Launch
from tests.fakes.provider import Provider
from tests.fakes.wire import exchange, post

SOON = {"SIDEGATE__QUOTA__DATABASE_TIMEOUT_MS": "1000", "SIDEGATE__QUOTA__RENEW_S": "1"}


@pytest.fixture
def biller() -> Iterator[Provider]:
    running = billing_provider(Pace(0.2, silent=0.1))
    yield running
    running.stop()


async def test_outage_when_replicas_are_under_load_then_every_rule_keeps_its_bound(
    biller: Provider, database_url: str, tmp_path: Path
) -> None:
    options = parser().parse_args(["--seconds", "4", "--before", "1", "--noticed", "3", "--rate", "24", "--seed", "1"])
    connection = await asyncpg.connect(database_url)
    async with faulty_link(database_url) as link:
        fleet = Fleet(tmp_path, biller, link.url, 2, **SOON)
        try:
            run = Outage(options, fleet, random.Random(options.seed), await callers_of(connection, options))
            await fleet.start()

            async def stop() -> None:
                link.silent()
                refusing.append(asyncio.create_task(refuse()))

            async def refuse() -> None:
                await asyncio.sleep(2)
                await link.down()

            async def start() -> None:
                await asyncio.gather(*refusing)
                await link.up()

            refusing: list[asyncio.Task[None]] = []
            await run.run(stop, start)
            assert fleet.metric("sidegate_quota_overspend_units_total") == 0
            await fleet.stop()
            accounts = await Accounts.read(connection, run.asks, biller)
            assert run.broken(accounts) == []
            assert {ask.status for ask in run.asks} >= {200, 503}
        finally:
            await connection.close()
            await fleet.stop()


async def test_postgres_when_every_answer_is_late_then_requests_do_not_wait_and_traces_are_stored(
    launch: Launch, database_url: str, case: str
) -> None:
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
    connection = await asyncpg.connect(database_url)
    async with faulty_link(database_url) as link, asyncio.timeout(60):
        proxy = await asyncio.to_thread(lambda: launch(database=link.url).reach_database())
        for delay_s in (0.0, 1.1):
            link.delay_s = delay_s
            reply = await exchange(proxy.address, post("/v1/chat/completions", body, case=case))
            assert reply.status == 200
            while not await connection.fetchval("SELECT count(*) FROM request_traces WHERE id = $1", reply.trace_id):
                await asyncio.sleep(0.05)
        while '"database":"slow"' not in (await asyncio.to_thread(proxy.ops, "/readyz"))[1]:
            await asyncio.sleep(0.05)
        link.delay_s = 0.0
        await asyncio.to_thread(proxy.reach_database)
        assert proxy.log().count("the database is slow") == 1
        await asyncio.to_thread(proxy.stop)
    await connection.close()
