"""PostgreSQL away from running replicas: what is served keeps to the bound of each rule, and nothing is lost.

The short form of `python -m bench.outage`: PostgreSQL falls silent, then refuses, then is back.
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
from tests.fakes.provider import Provider

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
