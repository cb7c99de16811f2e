import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import asyncpg
import pytest

from proxy.analytics.figures import Question
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.config import schema
from proxy.db import migrate
from proxy.db.pool import Database
from proxy.trace.store import TraceStore
from tests.analytics.history import generate, sums

SETTINGS = schema.Database()
DAY = date(2026, 10, 7)
HISTORY = [request for request in generate(250, DAY - timedelta(days=1), 3) if request.project == "unknown"]

FORMER = """
    WITH usage AS (SELECT * FROM analytics_sums WHERE requests + calls > 0),
        added AS (SELECT * FROM sidegate_usage_sums('-infinity', 'infinity')),
        latency AS (SELECT * FROM analytics_latency_sums WHERE number > 0),
        counted AS (SELECT * FROM sidegate_latency_sums('1999-01-01', '2999-01-01'))
    SELECT count(*) FROM ((TABLE usage EXCEPT TABLE added) UNION ALL (TABLE added EXCEPT TABLE usage)) AS found
    UNION ALL
    SELECT count(*) FROM ((TABLE latency EXCEPT TABLE counted) UNION ALL (TABLE counted EXCEPT TABLE latency)) AS found
"""
"""How many sums of sums of the version before are not those of the finer rows, by both kinds."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(SETTINGS)
    await database.connect(database_url)
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, [request.record() for request in HISTORY])
    await _make_blocks(database)
    yield database
    await database.close()


async def _make_blocks(database: Database) -> int:
    """Make all blocks that are due half a year later; return how many."""
    made = 0
    async with database.acquire() as connection:
        while await connection.fetchval("SELECT sidegate_make_block($1)", DAY + timedelta(days=180)):
            made += 1
    return made


async def _change(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(statement)


async def _total(database: Database):
    return (await Analytics(database).usage(Question(since=DAY, until=DAY))).total


async def test_sums_kept_by_the_trigger_are_those_of_the_traces(database: Database) -> None:
    [row] = await Rollup(database, 0).check(DAY, None)
    requests = [request for request in HISTORY if request.day == DAY]
    assert (row.project_id, row.wrong) == ("unknown", 0)
    assert row.kept_requests == row.counted_requests == len(requests) > 0
    nanos = sum(call.nanos for request in requests for call in request.calls)
    assert row.kept_cost == row.counted_cost == Decimal(nanos) / 10**9


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE request_traces SET input_tokens = input_tokens + 1",
        "DELETE FROM request_traces WHERE outcome = 'ok'",
        "UPDATE analytics_usage SET call_errors = call_errors + 1 WHERE kind = 'q'",
        "DELETE FROM analytics_usage",
        "DELETE FROM analytics_latency",
        "UPDATE analytics_days SET requests = requests + 1 WHERE kind = 's'",
        "DELETE FROM analytics_days WHERE kind = 'p'",
        "UPDATE analytics_latency_days SET number = number + 1",
        "UPDATE analytics_user_blocks SET cost_nanos = 0 WHERE days = 2",
        "DELETE FROM analytics_user_blocks WHERE days = 16",
        "UPDATE analytics_latency_blocks SET numbers[1] = numbers[1] + 1 WHERE days = 64 AND NOT is_all",
        "DELETE FROM analytics_latency_blocks WHERE days = 8 AND is_all",
        "DELETE FROM analytics_findings",
        "UPDATE request_traces SET policy = NULL",
        "INSERT INTO analytics_latency VALUES ('unknown', '2026-10-07', 'x', 'y', 'z', 'duration', 3, 2, 1)",
    ],
)
async def test_damage_is_found_and_mended(damage: str, database: Database) -> None:
    rollup = Rollup(database, 0)
    await _change(database, damage)
    found = {row.project_id: row for row in await rollup.check(DAY, None)}
    assert sum(row.wrong for row in found.values()) > 0
    assert {row.project_id: row for row in await rollup.check(DAY, None)} == found
    assert {row.project_id: row for row in await rollup.rebuild(DAY, None)} == found
    [now] = await rollup.check(DAY, None)
    assert now.wrong == 0
    assert now.kept_requests == now.counted_requests == found["unknown"].counted_requests
    assert (await _total(database)).requests == now.counted_requests
    await _make_blocks(database)
    assert [row.wrong for row in await rollup.check(DAY, None)] == [0]


async def _differences(database: Database) -> int:
    """Return how many coarse rows are not what the fine ones add up to: of days, and as the version before has them."""
    statement = """
        WITH days AS (SELECT * FROM analytics_days WHERE requests + calls > 0),
            summed AS (SELECT * FROM sidegate_usage_days('-infinity', 'infinity')),
            times AS (SELECT * FROM analytics_latency_days WHERE number > 0),
            timed AS (SELECT * FROM sidegate_latency_days('-infinity', 'infinity'))
        SELECT count(*) FROM ((TABLE days EXCEPT TABLE summed) UNION ALL (TABLE summed EXCEPT TABLE days)) AS found
        UNION ALL
        SELECT count(*) FROM ((TABLE times EXCEPT TABLE timed) UNION ALL (TABLE timed EXCEPT TABLE times)) AS found
    """
    async with database.acquire() as connection:
        rows = [*await connection.fetch(statement), *await connection.fetch(FORMER)]
    return sum(row[0] for row in rows)


async def test_coarse_sums_follow_every_change_of_the_fine_ones(database: Database) -> None:
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(DISTINCT kind) FROM analytics_sums") == 4
        assert await connection.fetchval("SELECT count(DISTINCT kind) FROM analytics_latency_sums") == 3
    assert await _differences(database) == 0
    later = generate(60, DAY - timedelta(days=1), 3, seed=8)
    async with database.transaction() as connection:  # more into the same cells, and other projects
        await TraceStore(database, SETTINGS).apply(connection, [request.record() for request in later])
    assert await _differences(database) == 0
    await _change(database, "UPDATE analytics_usage SET model = 'renamed', calls = calls + 3 WHERE model = 'opus'")
    await _change(database, "DELETE FROM analytics_latency WHERE bucket % 3 = 0")
    assert await _differences(database) == 0
    await _change(database, "DELETE FROM analytics_usage; DELETE FROM analytics_latency")
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM analytics_sums") == 0
        assert await connection.fetchval("SELECT count(*) FROM analytics_latency_sums") == 0
    for day in range(-1, 4):
        await Rollup(database, 0).rebuild(DAY + timedelta(days=day), None)
    assert await _differences(database) == 0
    assert (await _total(database)).requests == sum(request.at.date() == DAY for request in [*HISTORY, *later])


async def _answers(database: Database) -> tuple[object, ...]:
    """Return what is read from blocks: users and times of sixty days."""
    analytics, question = Analytics(database), Question(since=DAY - timedelta(days=30), until=DAY + timedelta(days=29))
    return (await analytics.users(question, 10))[1], (await analytics.latency(question)).by_model


async def _blocks(database: Database, since: date, until: date) -> list[tuple[int, date, date]]:
    async with database.acquire() as connection:
        return [
            tuple(row.values()) for row in await connection.fetch("SELECT * FROM sidegate_blocks($1, $2)", since, until)
        ]


async def test_range_is_read_from_blocks_that_cover_each_of_its_days_once(database: Database) -> None:
    dice = random.Random(5)
    await _change(database, f"SELECT sidegate_withdraw_blocks(ARRAY['{DAY + timedelta(days=50)}'::date])")
    for _ in range(100):
        since = DAY + timedelta(days=dice.randrange(-200, 200))
        until = since + timedelta(days=dice.randrange(200))
        parts = await _blocks(database, since, until)
        covered = [since, *(past for _, _, past in parts)]
        assert [first for _, first, _ in parts] == covered[:-1] and covered[-1] == until
        assert all(past - first == timedelta(days=days) for days, first, past in parts if days > 1)
    assert len(await _blocks(database, DAY - timedelta(days=40), DAY + timedelta(days=49))) <= 12


async def test_blocks_end_two_days_before_today_and_are_made_once(database: Database) -> None:
    [*_, (days, first, past)] = await _blocks(database, DAY, DAY + timedelta(days=200))
    assert (days, past) == (1, DAY + timedelta(days=200))
    assert DAY + timedelta(days=178) <= first <= DAY + timedelta(days=179)
    assert await _make_blocks(database) == 0
    await _change(database, f"SELECT sidegate_withdraw_blocks(ARRAY['{DAY}'::date])")
    assert await _make_blocks(database) == 6


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE analytics_usage SET requests = requests + 1 WHERE kind = 'u'",
        "UPDATE analytics_usage SET day = day + 30 WHERE kind = 'u' AND user_id = 'bob'",
        "DELETE FROM analytics_usage WHERE user_id = 'bob'",
        "INSERT INTO analytics_usage SELECT kind, project_id, day - 20, user_id, quarter, layer, model, request_type,"
        " shard, 1, 0, 0, 0, 0, 0, 0, 0, 1000000000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"
        " FROM analytics_usage WHERE kind = 'u'",
        "UPDATE analytics_latency SET number = number + 1",
        "DELETE FROM analytics_latency WHERE bucket % 3 = 0",
        "INSERT INTO analytics_latency SELECT project_id, day + 20, layer, model, request_type, measure, bucket, shard,"
        " 7 FROM analytics_latency",
    ],
)
async def test_change_of_a_sum_is_read_at_once_and_from_new_blocks(change: str, database: Database) -> None:
    before = await _answers(database)
    await _change(database, change)
    now = await _answers(database)
    assert now != before
    assert await _make_blocks(database) > 0
    assert await _answers(database) == now
    await _change(database, "DELETE FROM analytics_blocks")
    assert await _answers(database) == now


async def test_late_traces_are_read_at_once_and_from_new_blocks(database: Database) -> None:
    late = generate(60, DAY - timedelta(days=1), 3, seed=9)
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, [request.record() for request in late])
    expected = sums([*HISTORY, *late], lambda request: request.user or "")
    for made in (False, True):
        users, by_model = await _answers(database)
        assert {share.name: share.sums.requests for share in users} == {
            n: part.requests for n, part in expected.items()
        }
        calls = [call for request in (*HISTORY, *late) for call in request.calls]
        assert sum(part["duration"].number for part in by_model.values()) == len(calls)
        assert made or await _make_blocks(database) > 0


async def test_blocks_that_are_due_today_are_made_by_the_maintenance(database: Database) -> None:
    today = datetime.now(UTC).date()
    recent = generate(40, today - timedelta(days=9), 4, seed=9)
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, [request.record() for request in recent])
    await _change(database, "DELETE FROM analytics_blocks")
    assert await Rollup(database, 0).make_blocks() > 0
    assert await Rollup(database, 0).make_blocks() == 0
    parts = await _blocks(database, today - timedelta(days=9), today + timedelta(days=1))
    assert sum((past - first).days for days, first, past in parts if days > 1) in (6, 7, 8)
    assert parts[-1][0] == 1


async def test_sums_are_the_same_after_a_way_back_and_up_again(database: Database, database_url: str) -> None:
    answers = await _answers(database)
    store, late = TraceStore(database, SETTINGS), [r.record() for r in generate(40, DAY, 2, seed=9)]
    connection = await asyncpg.connect(database_url)
    await migrate.down(connection, 12)
    assert [row[0] for row in await connection.fetch(FORMER)] == [0, 0]
    assert await connection.fetchval("SELECT count(*) FROM analytics_sums WHERE kind = 'S'") > 0
    async with database.transaction() as writing:  # by the functions of before, with what the store needs by now
        for name in ("014_response_chains", "015_dead_letters"):
            await writing.execute((migrate.MIGRATIONS / f"{name}.sql").read_text())
        await store.apply(writing, late[:20])
        for name in ("015_dead_letters", "014_response_chains"):
            await writing.execute((migrate.MIGRATIONS / f"{name}_rollback.sql").read_text())
    assert [row[0] for row in await connection.fetch(FORMER)] == [0, 0]
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'analytics%blocks'") == 0
    await migrate.up(connection)
    await connection.close()
    assert await _differences(database) == 0
    after = await _answers(database)
    assert after != answers
    assert await _make_blocks(database) > 0
    assert await _answers(database) == after
    async with database.transaction() as writing:
        await store.apply(writing, late[20:])
    assert await _differences(database) == 0


async def test_traces_and_a_block_of_their_day_wait_for_each_other(database: Database) -> None:
    store, late = TraceStore(database, SETTINGS), [r.record() for r in generate(40, DAY, 1, seed=9)]
    await _change(database, "DELETE FROM analytics_blocks")
    async with database.transaction() as connection:  # not committed yet when blocks are to be made
        await store.apply(connection, late[:20])
        making = asyncio.create_task(_make_blocks(database))
        await _until_waiting(database, 1)
    assert await making > 0
    exact = await _answers(database)
    await _change(database, "DELETE FROM analytics_blocks")
    assert await _answers(database) == exact

    async def write() -> None:
        async with database.transaction() as connection:
            await store.apply(connection, late[20:])

    async with database.transaction() as connection:  # the block is made first, and withdrawn by who waited for it
        assert await connection.fetchval("SELECT sidegate_make_block($1)", DAY + timedelta(days=180))
        writing = asyncio.create_task(write())
        await _until_waiting(database, 1)
    await writing
    assert all(days == 1 for days, _, _ in await _blocks(database, DAY, DAY + timedelta(days=1)))


async def _until_waiting(database: Database, number: int) -> None:
    async with asyncio.timeout(30), database.acquire() as connection:
        while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < number:
            await asyncio.sleep(0.01)


async def test_every_duration_is_in_the_bucket_that_is_nearest_to_it(database: Database) -> None:
    expected = {}
    for bucket in range(-23, 264):  # up to a hundred days; the limit above is 1000 * 2^((bucket + 0.5) / 8)
        last = int(1000 * 2 ** ((bucket + 0.5) / 8))
        while last**16 > 1000**16 * Fraction(2) ** (2 * bucket + 1):
            last -= 1
        while (last + 1) ** 16 < 1000**16 * Fraction(2) ** (2 * bucket + 1):
            last += 1
        expected |= {last: bucket, last + 1: bucket + 1}
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT us, sidegate_bucket(us) FROM unnest($1::bigint[]) AS us", [*expected])
    assert dict(tuple(row.values()) for row in rows) == expected


async def test_findings_of_the_policy_are_counted_by_rule_and_action(database: Database) -> None:
    found = await Analytics(database).findings(Question(since=DAY, until=DAY), 10)
    requests = [request for request in HISTORY if request.day == DAY]
    pii, more = [sum(r.findings[n] for r in requests) for n in (0, 1)]
    expected = {
        ("email", "pii", "redact", "input", pii, sum(r.findings[0] > 0 for r in requests)),
        ("", "", "", "", more, sum(r.findings[1] > 0 for r in requests)),
    }
    assert {(f.rule, f.category, f.action, f.direction, f.findings, f.requests) for f in found[1]} == expected
    assert 0 < pii and 0 < more
    before = found[1]
    await _change(
        database,
        "INSERT INTO request_traces (id, created_at, policy) VALUES "
        """ (gen_random_uuid(), '2026-10-07T12:00Z', '{"findings": "x", "moreFindings": "-1"}'),"""
        """ (gen_random_uuid(), '2026-10-07T12:00Z', '{"findings": [7, null]}'),"""
        """ (gen_random_uuid(), '2026-10-07T12:00Z', '"odd"')""",
    )
    _, after = await Analytics(database).findings(Question(project_id="unknown", since=DAY, until=DAY), 10)
    assert after == before


async def test_sums_by_another_zone_follow_the_projects_zone(database: Database) -> None:
    await _change(
        database,
        "INSERT INTO projects (id, organization_id, name, config) VALUES"
        """ ('unknown', 'default-org', 'x', '{"timeZone": "Pacific/Auckland"}')""",
    )
    rollup = Rollup(database, 0)
    for day in range(-2, 4):
        await rollup.rebuild(DAY + timedelta(days=day), "unknown")
    found = (await Analytics(database).usage(Question(project_id="unknown", since=DAY, until=DAY))).total
    zone = timedelta(hours=13)
    assert found.requests == sum((request.at + zone).date() == DAY for request in HISTORY)
    for day in range(-2, 4):
        assert [row.wrong for row in await rollup.check(DAY + timedelta(days=day), None)] in ([], [0])


async def test_writers_wait_for_a_rebuild_only_where_something_is_wrong(database: Database) -> None:
    rollup, late = Rollup(database, 0), [r.record() for r in generate(20, DAY, 1, seed=9)]
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, late)
        [row] = await rollup.rebuild(DAY, "unknown")
        assert row.wrong == 0
        await connection.execute("UPDATE request_traces SET input_tokens = input_tokens + 1")
    rebuilding = [row.wrong for row in await rollup.rebuild(DAY, "unknown")]
    assert rebuilding != [0]
    assert [row.wrong for row in await rollup.check(DAY, "unknown")] == [0]


async def test_odd_figures_in_a_trace_count_nothing_and_stop_nothing(database: Database) -> None:
    before = await _total(database)
    calls = (
        '[{"inputTokens": "x", "cost": "NaN", "durationMs": "1", "status": []}, 7, null, {"cost": 1e300, '
        '"outputTokens": -5, "inputTokens": 1e40, "status": 200, "durationMs": 1e300, "model": {"a": 1}}]'
    )
    await _change(
        database,
        "INSERT INTO request_traces (id, created_at, total_duration_ms, input_tokens, llm_calls) VALUES"
        f" (gen_random_uuid(), '2026-10-07T12:00Z', 'NaN', 9223372036854775807, '{calls}')",
    )
    after = await _total(database)
    assert (after.requests - before.requests, after.calls - before.calls) == (1, 4)
    assert after.input_tokens - before.input_tokens == 10**15
    [_, unknown] = sorted(await Rollup(database, 0).check(DAY, None), key=lambda row: row.project_id)
    assert unknown.wrong == 0


def test_days_past_retention_cannot_be_made_anew() -> None:
    today = datetime.now(UTC).date()
    rollup = Rollup(Database(SETTINGS), 30)
    assert rollup.has_traces_of(today - timedelta(days=28))
    assert not rollup.has_traces_of(today - timedelta(days=29))
    assert Rollup(Database(SETTINGS), 0).has_traces_of(date(2000, 1, 1))
