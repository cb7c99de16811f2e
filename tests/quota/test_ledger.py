"""The ledger on real PostgreSQL: grants, standings, limits and what plain SQL sees of them."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.conftest import Postgres
from tests.quota.replica import ALICE, Replica, charge

KEY = (ALICE.user_id, ALICE.project_id)
DOLLAR = 1_000_000_000


@pytest.fixture
async def one(database_url: str, tmp_path: Path) -> AsyncIterator[Replica]:
    replica = Replica(database_url, tmp_path, "one")
    await replica.start(keep=False)
    yield replica
    await replica.stop()


async def sql(one: Replica, statement: str) -> object:
    async with one.database.acquire() as connection:
        return await connection.fetchval(statement)


async def test_acquire_when_the_caller_is_new_then_it_gets_the_defaults(one: Replica) -> None:
    grant = await one.ledger.acquire(*KEY, uuid4(), (100, 5), (1000, 50))
    assert (grant.tokens, grant.nanos) == (1000, 50)
    assert (grant.balance.max_tokens, grant.balance.max_nanos) == (1_000_000, 10 * DOLLAR)
    assert grant.balance.available_tokens == 999_000
    assert 0 < grant.ttl_s <= 30
    assert grant.balance.window_s <= 86_400


async def test_acquire_when_the_project_has_rules_then_they_count_before_the_defaults(one: Replica) -> None:
    await sql(one, """UPDATE projects SET config = '{"quota": {"maxTokensDaily": 500, "maxCostDaily": 0.25}}'""")
    grant = await one.ledger.acquire(*KEY, uuid4(), (100, 0), (100, 0))
    assert (grant.balance.max_tokens, grant.balance.max_nanos) == (500, DOLLAR // 4)


async def test_acquire_when_repeated_then_it_is_the_same_grant(one: Replica) -> None:
    lease = uuid4()
    first = await one.ledger.acquire(*KEY, lease, (100, 0), (200, 0))
    again = await one.ledger.acquire(*KEY, lease, (100, 0), (200, 0))
    assert (first.tokens, again.tokens) == (200, 200)
    assert (await one.ledger.status(*KEY)).held_tokens == 200


async def test_acquire_when_there_is_too_little_then_nothing_is_granted(one: Replica) -> None:
    await one.ledger.update(*KEY, 50, None)
    grant = await one.ledger.acquire(*KEY, uuid4(), (51, 0), (51, 0))
    assert (grant.tokens, grant.nanos, grant.balance.available_tokens) == (0, 0, 50)


async def test_status_when_the_caller_was_never_seen_then_nothing_is_made(one: Replica) -> None:
    row = await one.ledger.status(*KEY)
    assert (row.exists, row.max_tokens, row.max_cost, row.tokens) == (False, 1_000_000, Decimal("10.0"), 0)
    assert await sql(one, "SELECT count(*) FROM user_quotas") == 0


async def test_update_when_one_limit_is_named_then_the_other_stays(one: Replica) -> None:
    await one.ledger.update(*KEY, 7, None)
    row = await one.ledger.update(*KEY, None, Decimal("0.5"))
    assert (row.max_tokens, row.max_cost, row.exists) == (7, Decimal("0.5"), True)


async def test_reset_when_units_were_used_then_they_are_archived(one: Replica) -> None:
    assert await one.ledger.reset(*KEY) is None
    held = await one.reserve_now_or_ask()
    charge(one, held.settle(60, 5), 60, 5)
    assert await one.writer.flush(5)
    assert (await one.ledger.status(*KEY)).tokens == 60
    row = await one.ledger.reset(*KEY)
    assert row is not None and (row.tokens, row.window) == (0, 2)
    assert await sql(one, "SELECT tokens FROM quota_windows") == 60


async def test_top_when_several_have_used_some_then_the_nearest_to_its_limit_comes_first(one: Replica) -> None:
    for user, limit in (("a", 1000), ("b", 0), ("c", 5000)):
        await one.ledger.update(user, "default-project", limit, None)
    rows = await one.ledger.top("default-project", 2)
    assert [row.user_id for row in rows] == ["b", "a"]
    assert await one.ledger.top("elsewhere", 5) == []


async def test_window_when_a_statement_ends_it_then_the_next_begins_at_zero(one: Replica) -> None:
    held = await one.reserve_now_or_ask()
    await sql(one, "UPDATE user_quotas SET reset_at = now() - interval '1 hour' RETURNING 1")
    charge(one, held.settle(60, 0), 60)
    assert await one.writer.flush(5)
    row = await one.ledger.status(*KEY)
    assert (row.tokens, row.window, row.held_tokens) == (0, 2, 0)
    assert await sql(one, "SELECT tokens FROM quota_windows WHERE window_no = 1") == 60


async def test_reset_all_quotas_when_called_from_sql_then_every_window_is_new(one: Replica) -> None:
    await one.ledger.update("a", "default-project", 1, None)
    await one.ledger.update("b", "default-project", 1, None)
    assert await sql(one, "SELECT reset_all_quotas()") == 2
    assert await sql(one, "SELECT min(window_no) FROM user_quotas") == 2


async def test_reconcile_when_a_holder_is_gone_for_good_then_its_units_are_free(one: Replica) -> None:
    await one.ledger.acquire(*KEY, uuid4(), (100, 0), (100, 0))
    await sql(one, "UPDATE quota_leases SET expires_at = now() - interval '1 hour' RETURNING 1")
    assert (await one.ledger.status(*KEY)).burned_tokens == 100
    assert await sql(one, "SELECT sidegate_reconcile_quotas(interval '1 hour')") == 0
    assert await sql(one, "SELECT sidegate_reconcile_quotas(interval '0')") == 1
    assert (await one.ledger.status(*KEY)).burned_tokens == 0
    await one.ledger.maintain()


async def test_charges_when_an_older_copy_was_put_back_then_a_journal_without_cursor_brings_them_again(
    one: Replica, postgres: Postgres, tmp_path: Path
) -> None:
    running = await one.reserve_now_or_ask()  # its lease is open in the copy
    await one.database.close()
    copy = postgres.create_database(urlsplit(one.url).path[1:])
    await one.database.connect(one.url)
    charge(one, running.settle(70, 7), 70, 7)
    one.keeper.give_all_back()
    second = await one.reserve_now_or_ask()  # on a lease that the copy does not know
    charge(one, second.settle(40, 4), 40, 4)
    await one.stop()
    (tmp_path / "one" / "cursor").unlink()
    after = Replica(copy, tmp_path, "one")
    await after.start(keep=False)
    try:
        assert await after.writer.flush(5)
        row = await after.ledger.status(*KEY)
        assert (row.tokens, row.cost * DOLLAR, row.held_tokens, row.burned_tokens) == (110, 11, 0, 0)
        assert after.writer.stats().replayed == 0
    finally:
        await after.stop()
        postgres.drop_database(copy)
