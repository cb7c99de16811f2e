"""What is served while PostgreSQL is away, rule by rule, and that its charge is booked afterwards."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import ProxyError, QuotaUnavailable
from proxy.quota.caller import Caller
from tests.quota.replica import ALICE, Replica, bound, charge, replicas

BOB, CAROL = replace(ALICE, user_id="bob"), replace(ALICE, user_id="carol")
AWAY = "postgresql://nobody@127.0.0.1:1/nowhere"


def caller(one: Replica) -> Caller:
    known = one.callers.known(*_key())
    assert known is not None
    return known


async def served(one: Replica, nanos: int = 0, most: int = 40) -> int:
    """Ask until it is refused; return how many requests of 100 tokens were admitted."""
    for count in range(most):
        try:
            await one.reserve(bound(100, nanos))
        except QuotaUnavailable:
            return count
    return most


@pytest.mark.parametrize(
    ("policy", "share", "expected"),
    [("closed", 0.1, 0), ("open", 0.1, 40), ("lease", 0.0, 0), ("lease", 0.001, 10), ("capped:0.9", 0.1, 10)],
    ids=["closed", "open", "lease without a share", "lease before any contact", "capped"],
)
async def test_request_when_postgresql_was_never_reached_then_the_rule_decides(
    tmp_path: Path, policy: str, share: float, expected: int
) -> None:
    settings = {"on_database_outage": policy, "cold_start_share": share, "cold_start_wait_s": 0.0}
    one = Replica(AWAY, tmp_path, "a", **settings)
    await one.start(keep=False)
    one.outage.note_silence(math.inf)
    assert await served(one, nanos=1_000_000_000_000) == expected if policy.startswith("capped") else True
    if not policy.startswith("capped"):
        assert await served(one) == expected
    await one.stop_without_database()


async def test_request_when_postgresql_goes_away_then_what_is_held_is_served_and_no_more(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, 1, database_timeout_ms=200) as (one,):
        await one.ledger.update(ALICE.user_id, ALICE.project_id, 2000, None)
        (await one.reserve(bound(100))).cancel()
        tokens, _ = caller(one).account.spare(0.0)
        await one.database.close()
        one.outage.note_silence(math.inf)
        assert await served(one) == tokens // 100
        await one.database.connect(database_url)


async def test_request_when_one_lease_waits_for_a_lock_then_others_are_served(
    database_url: str, tmp_path: Path
) -> None:
    """It was an outage for all callers until the next renewal."""
    async with replicas(database_url, tmp_path, 1, database_timeout_ms=400) as (one,):
        await one.ledger.update(ALICE.user_id, ALICE.project_id, 2000, None)
        async with one.database.transaction() as connection:
            await connection.execute("SELECT * FROM user_quotas WHERE user_id = $1 FOR UPDATE", ALICE.user_id)
            waiting = asyncio.ensure_future(one.reserve(bound(100)))
            await asyncio.sleep(0.2)
            (await one.reserve(bound(100), BOB)).cancel()
            with pytest.raises(QuotaUnavailable):
                await waiting
            assert not one.outage.is_away
            (await one.reserve(bound(100), CAROL)).cancel()
        (await one.reserve(bound(100))).cancel()


async def test_request_when_the_rule_is_closed_then_even_what_is_held_is_not_served(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, 1, on_database_outage="closed") as (one,):
        (await one.reserve(bound(100))).cancel()
        one.outage.note_silence(math.inf)
        with pytest.raises(ProxyError) as caught:
            one.quotas.reserve_now(ALICE, bound(100))
        assert (caught.value.http_status, caught.value.code) == (503, "quota_unavailable")
        one.outage.note_answer()


async def test_cap_when_its_caller_pauses_during_the_outage_then_it_stays_used(tmp_path: Path) -> None:
    one = Replica(AWAY, tmp_path, "a", on_database_outage="capped:0.9", cold_start_wait_s=0.0, idle_s=0.001)
    await one.start(keep=False)
    assert await served(one, nanos=1_000_000_000_000) == 10
    for _ in range(10):
        caller(one).account.leases.clear()
        await one.keeper.renew()
        await asyncio.sleep(0.002)
    assert await served(one, nanos=1_000_000_000_000) == 0
    one.outage.note_answer()
    await asyncio.sleep(0.002)
    one.keeper.tidy()
    assert one.callers.known(*_key()) is None, "PostgreSQL is back"
    await one.stop_without_database()


async def test_charge_when_it_has_no_lease_then_it_is_booked_all_the_same(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path, 1, on_database_outage="open", cold_start_wait_s=0.0) as (one,):
        one.outage.note_silence(math.inf)
        one.outage.is_away = True
        held = await one.reserve(bound(100))
        hold = held.settle(70, 0)
        charge(one, hold, 70)
        assert await one.writer.flush(5)
        assert (await one.ledger.status(*_key())).tokens == 70


async def test_request_without_a_maximum_when_the_cap_is_small_then_it_gets_a_part_of_it(tmp_path: Path) -> None:
    one = Replica(AWAY, tmp_path, "a", on_database_outage="capped:0.001", cold_start_wait_s=0.0)
    await one.start(keep=False)
    one.outage.note_silence(math.inf)
    wide = replace(bound(100_000, 600_000_000), can_grow=True)
    admitted = [await one.reserve(wide) for _ in range(4)]
    assert all(held.is_lowered and held.bound.is_capped for held in admitted)
    assert [held.bound.output_tokens for held in admitted] == [416, 312, 256, 256]
    assert sum(held.bound.cost_nanos for held in admitted) <= 1_000_000
    with pytest.raises(QuotaUnavailable):
        for _ in range(5):
            await one.reserve(wide)
    await one.stop_without_database()


@pytest.mark.parametrize(("rule", "expected"), [("closed", 0), ("open", 40)])
async def test_caller_when_it_is_new_while_postgresql_is_away_then_its_projects_rule_counts(
    tmp_path: Path, rule: str, expected: int
) -> None:
    def rules(project_id: str) -> str | None:
        return json.dumps({"onDatabaseOutage": rule}) if project_id == ALICE.project_id else None

    one = Replica(AWAY, tmp_path, "a", rules=rules, on_database_outage="lease", cold_start_wait_s=0.0)
    await one.start(keep=False)
    one.outage.note_silence(math.inf)
    assert await served(one) == expected
    await one.stop_without_database()


def _key() -> tuple[str, str]:
    return ALICE.user_id, ALICE.project_id
