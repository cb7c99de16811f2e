from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from proxy.analytics.figures import Question
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.config import schema
from proxy.db.pool import Database
from proxy.trace.store import TraceStore
from tests.analytics.history import generate

SETTINGS = schema.Database()
DAY = date(2026, 10, 7)
HISTORY = [request for request in generate(250, DAY - timedelta(days=1), 3) if request.project == "unknown"]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(SETTINGS)
    await database.connect(database_url)
    async with database.transaction() as connection:
        await TraceStore(database, SETTINGS).apply(connection, [request.record() for request in HISTORY])
    yield database
    await database.close()


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
        "UPDATE analytics_sums SET requests = requests + 1 WHERE kind = 's'",
        "DELETE FROM analytics_sums WHERE kind = 'p'",
        "UPDATE analytics_sums SET cost_nanos = 0 WHERE kind = 'S'",
        "UPDATE analytics_latency_sums SET number = number + 1 WHERE kind = 'w'",
        "DELETE FROM analytics_findings",
        "UPDATE request_traces SET policy = NULL",
        "INSERT INTO analytics_latency VALUES ('unknown', '2026-10-07', 'x', 'y', 'z', 'duration', 3, 2, 1)",
    ],
)
async def test_damage_is_found_and_mended(damage: str, database: Database) -> None:
    rollup = Rollup(database, 0)
    await _change(database, damage)
    [found] = await rollup.check(DAY, "unknown")
    assert found.wrong > 0
    assert await rollup.check(DAY, "unknown") == [found]
    assert await rollup.rebuild(DAY, "unknown") == [found]
    [now] = await rollup.check(DAY, None)
    assert now.wrong == 0
    assert now.kept_requests == now.counted_requests == found.counted_requests
    assert (await _total(database)).requests == now.counted_requests


async def _differences(database: Database) -> int:
    """Return how many coarse rows are not what the fine ones add up to."""
    statement = """
        WITH usage AS (SELECT * FROM analytics_sums WHERE requests + calls > 0),
            added AS (SELECT * FROM sidegate_usage_sums('-infinity', 'infinity')),
            latency AS (SELECT * FROM analytics_latency_sums WHERE number > 0),
            counted AS (SELECT * FROM sidegate_latency_sums('1999-01-01', '2999-01-01'))
        SELECT count(*) FROM ((TABLE usage EXCEPT TABLE added) UNION ALL (TABLE added EXCEPT TABLE usage)) AS found
        UNION ALL
        SELECT count(*) FROM ((TABLE latency EXCEPT TABLE counted) UNION ALL (TABLE counted EXCEPT TABLE latency))
            AS found
    """
    async with database.acquire() as connection:
        return sum(row[0] for row in await connection.fetch(statement))


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
