"""Reserving on real PostgreSQL: what fits is admitted, what does not is refused, and nothing stays held."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import QuotaExceeded, RateLimited
from proxy.exchange import Meter, Usage
from proxy.metrics import Sample
from proxy.nouns.holds import Bound, Share
from proxy.quota.caller import Caller
from proxy.quota.lease import Account, Part
from proxy.quota.limits import ProjectQuota
from proxy.quota.reservation import Reservation
from tests.quota.replica import ALICE, Replica, bound, charge, replicas


async def limit(one: Replica, tokens: int) -> None:
    await one.ledger.update(ALICE.user_id, ALICE.project_id, tokens, None)


async def test_reserve_when_a_lease_is_in_hand_then_it_needs_no_wait(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        first = await one.reserve(bound(100))
        assert one.quotas.reserve_now(ALICE, bound(100)) is not None
        hold = first.settle(40, 5)
        assert [(share.tokens, share.cost_nanos) for share in hold.shares] == [(40, 5)]
        assert hold.window == 1


async def test_reserve_when_the_limit_is_reached_then_the_error_says_so(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        await limit(one, 0)
        with pytest.raises(QuotaExceeded) as caught:
            await one.reserve(bound(100))
        assert caught.value.code == "insufficient_quota"
        assert caught.value.details["reason"] == "tokens"


async def test_reserve_when_little_is_left_then_the_maximum_is_lowered_to_it(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        await limit(one, 60)
        held = await one.reserve(bound(100))
        assert held.is_lowered
        assert held.bound.output_tokens == 50
        held.cancel()


async def test_reserve_when_others_will_settle_then_it_waits_for_them(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        await limit(one, 100)
        first = await one.reserve(bound(100))
        second = asyncio.create_task(one.reserve(bound(60)))
        await asyncio.sleep(0.05)
        assert not second.done()
        first.settle(40, 0)
        assert not (await asyncio.wait_for(second, 3)).is_lowered


async def test_reserve_when_it_is_cancelled_then_nothing_stays_held(database_url: str, tmp_path: Path) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        await limit(one, 100)
        first = await one.reserve(bound(100))
        second = asyncio.create_task(one.reserve(bound(60)))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        first.settle(0, 0)
        assert (await one.reserve(bound(100))).bound.tokens == 100


async def test_reserve_on_four_replicas_at_once_then_exactly_what_fits_is_served(
    database_url: str, tmp_path: Path
) -> None:
    """Each request may use 100 and uses 30 tokens: 33 fit into 1,000, and the next that could would need 100."""
    async with replicas(database_url, tmp_path, 4, renew_s=0.2) as fleet:
        await limit(fleet[0], 1000)
        served = 0

        async def ask(one: Replica) -> None:
            nonlocal served
            held = await one.reserve(bound(100))
            await asyncio.sleep(0.02)
            used = min(30, held.bound.tokens)
            hold = held.settle(used, 0)
            charge(one, hold, used)
            served += 1

        results = await asyncio.gather(*(ask(fleet[i % 4]) for i in range(120)), return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), QuotaExceeded}
        assert 33 <= served <= 34
        for one in fleet:
            one.keeper.give_all_back()
            assert await one.writer.flush(5)
        row = await fleet[0].ledger.status(ALICE.user_id, ALICE.project_id)
        assert row.tokens <= 1000
        assert (row.held_tokens, row.burned_tokens) == (0, 0)
        assert all(one.ledger.over_tokens == 0 for one in fleet)


async def test_reserve_when_running_requests_hold_the_rest_for_long_then_it_may_be_tried_again(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, max_wait_ms=100) as (one,):
        await limit(one, 100)
        running = await one.reserve(bound(100))
        with pytest.raises(RateLimited) as caught:
            await one.reserve(bound(60))
        assert caught.value.details["reason"] == "reserved"
        hold = running.settle(100, 0)
        charge(one, hold, 100)
        assert await one.writer.flush(5)
        with pytest.raises(QuotaExceeded) as final:
            await one.reserve(bound(60))
        assert final.value.code == "insufficient_quota"


async def test_streams_without_a_maximum_when_little_is_left_then_they_share_it(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path) as (one,):
        await limit(one, 1200)
        wide = bound(100_000, modest=1024, can_grow=True)
        running = await asyncio.gather(*(one.reserve(wide) for _ in range(4)))
        assert [held.bound.output_tokens for held in running] == [290, 290, 290, 290]
        assert not any(held.bound.is_capped for held in running)
        for held in running:
            held.cancel()


class Generous:
    """Books with whatever is asked for."""

    async def extend(self, reservation: Reservation, least: int) -> None:
        reservation.bound = replace(reservation.bound, output_tokens=reservation.bound.output_tokens + least)

    async def more(self, _caller: Caller, _tokens: int, _nanos: int) -> list[Part]:
        return []

    def settle(self, _reservation: Reservation, _tokens: int, _nanos: int) -> tuple[Share, ...]:
        return ()


def reservation(most: Bound) -> Reservation:
    return Reservation(Generous(), Caller(Account("u", "p"), ProjectQuota("open"), 0.0), most, [], None, None, 0)


async def test_session_when_its_figures_pass_the_reservation_then_it_is_extended_by_them() -> None:
    """Sound says little in text: what a provider has told already counts, with the input of every response."""
    one = reservation(replace(bound(1010, can_grow=True), is_capped=False))
    assert not one.covers(Meter(output_text_bytes=500, sound_tokens=500))
    meter = Meter(output_text_bytes=50, usage=Usage(input_tokens=600, output_tokens=300))
    assert one.covers(meter)
    meter.usage = Usage(input_tokens=1500, output_tokens=700)
    assert not one.covers(meter)
    assert await one.extend(meter)
    assert one.covers(meter)
    assert one.bound.tokens >= 2200
    # One that has begun counts with its text and what the one before has read.
    meter.usage_by_model, meter.answered, meter.latest_input_tokens = {"m": meter.usage}, 40, 900
    assert not one.covers(meter)
    assert await one.extend(meter)
    assert one.bound.tokens >= 2200 + 900 + 10


async def test_stream_when_figures_on_its_way_are_impossible_then_they_do_not_end_it() -> None:
    one = reservation(replace(bound(1010, can_grow=True), is_capped=False))
    assert one.covers(Meter(output_text_bytes=50, usage=Usage(input_tokens=10**9)))


async def test_caller_when_all_others_run_requests_then_a_new_one_waits_its_turn_and_no_limit_is_forgotten(
    database_url: str, tmp_path: Path
) -> None:
    async with replicas(database_url, tmp_path, max_callers=3) as (one,):
        running = []
        for number in range(3 + 1):  # one more until a whole round has been looked at
            running.append(await one.reserve(bound(10), replace(ALICE, user_id=f"u{number}")))
        with pytest.raises(RateLimited) as caught:
            await one.reserve(bound(10), replace(ALICE, user_id="another"))
        assert caught.value.details == {"reason": "callers"}
        assert 'callers"} 1' in "".join(map(line, one.tally.samples()))
        assert await one.reserve(bound(10), replace(ALICE, user_id="u1")) is not None, "a known one goes on"
        free = one.quotas.without_limit(replace(ALICE, user_id="another"))
        free.settle(5, 0)
        running[2].cancel()
        assert await one.reserve(bound(10), replace(ALICE, user_id="another")) is not None


def line(sample: Sample) -> str:
    return f'{sample.name}{{reason="{sample.labels.get("reason")}"}} {sample.value:g}\n'
