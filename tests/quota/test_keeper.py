"""Leases are renewed, given back when nobody needs them, and ended when their process is gone."""

import asyncio
import logging
from pathlib import Path

import pytest

from proxy.quota.caller import Caller
from proxy.quota.lease_book import ended
from tests.quota.replica import ALICE, Replica, bound, charge, replicas

KEY = (ALICE.user_id, ALICE.project_id)


def caller(one: Replica) -> Caller:
    known = one.callers.known(*KEY)
    assert known is not None
    return known


async def held(one: Replica) -> tuple[int, int]:
    assert await one.writer.flush(5)
    row = await one.ledger.status(*KEY)
    return row.held_tokens, row.burned_tokens


async def test_lease_when_idle_then_it_is_given_back(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path, 1, idle_s=0.001) as (one,):
        (await one.reserve(bound(100))).cancel()
        await one.keeper.renew()
        assert await held(one) == (0, 0)
        assert one.callers.known(*KEY) is None


async def test_lease_when_a_request_runs_on_it_then_its_part_is_kept(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path, 1) as (one,):
        running = await one.reserve(bound(100))
        caller(one).balance = None
        await one.ledger.update(*KEY, 0, None)
        await one.keeper.renew()
        assert await held(one) == (100, 0)
        charge(one, running.settle(30, 0), 30)
        one.keeper.give_all_back()
        assert await held(one) == (0, 0)
        assert (await one.ledger.status(*KEY)).tokens == 30


async def test_lease_when_its_time_is_over_but_its_holder_lives_then_it_is_renewed(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, 1, lease_ttl_s=0.01, renew_s=3600.0) as (one,):
        running = await one.reserve(bound(100))
        while not (burned := (await held(one))[1]):
            await asyncio.sleep(0.01)
        assert burned > 100
        one.ledger._ttl *= 10_000
        await one.keeper.renew()
        assert await held(one) == (burned, 0)
        running.cancel()


async def test_limit_when_it_is_lowered_then_what_is_spare_goes_back_at_the_next_renewal(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, 1, renew_s=3600.0) as (one,):
        (await one.reserve(bound(100))).cancel()
        await one.ledger.update(*KEY, 10, None)
        await one.keeper.renew()
        assert await held(one) == (0, 0)
        assert one.quotas.reserve_now(ALICE, bound(100)) is None


async def test_lease_when_postgresql_has_lost_it_then_nothing_more_is_given_out_of_it(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, 1, renew_s=3600.0) as (one,):
        running = await one.reserve(bound(100))
        async with one.database.transaction() as connection:
            await connection.execute("DELETE FROM quota_leases")
            await connection.execute("UPDATE user_quotas SET held_tokens = 0, held_nanos = 0")
        one.keeper._look_at = 0.0
        await one.keeper.renew()
        assert caller(one).account.spare(0.0) == (0, 0)
        assert one.quotas.reserve_now(ALICE, bound(100)) is None
        charge(one, running.settle(30, 0), 30)
        one.keeper.tidy()
        assert await one.writer.flush(5)
        assert caller(one).account.leases == []
        row = await one.ledger.status(*KEY)
        assert (row.tokens, row.held_tokens, one.ledger.unknown) == (30, 0, 1)
        assert (await one.reserve(bound(100))).bound.tokens == 100


async def test_warning_when_a_limit_is_nearly_used_then_it_comes_once_per_step(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replicas(database_url, tmp_path, 1, renew_s=3600.0) as (one,):
        await one.ledger.update(*KEY, 1000, None)
        with caplog.at_level(logging.WARNING, logger="sidegate.quota"):
            for used in (850, 50, 100):
                charge(one, (await one.reserve(bound(100))).settle(used, 0), used)
                assert await one.writer.flush(5)
                await one.keeper.renew()
                await one.keeper.renew()
        assert [record.percent for record in caplog.records] == [80, 100]
        counts = {
            sample.labels["percent"]: sample.value for sample in one.tally.samples() if "percent" in sample.labels
        }
        assert counts == {"80": 1, "100": 1}


async def test_lease_when_its_process_dies_then_the_next_one_ends_it(database_url: str, tmp_path: Path) -> None:
    first = Replica(database_url, tmp_path, "a")
    await first.start(keep=False)
    first.outage.note_answer()
    await first.reserve(bound(100))
    await first.die()
    second = Replica(database_url, tmp_path, "a")
    recovery = second.journal.open()
    ends = [(intent.trace_id, ended(intent.body)) for intent in recovery.orphans]
    assert len(ends) == 1
    for lease_id, end in ends:
        assert end is not None
        second.journal.append_lease(lease_id, end, ended=True)
    await second.start(opened=True)
    assert await held(second) == (0, 0)
    await second.stop()
