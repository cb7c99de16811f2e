"""Every figure of every question, against the plain arithmetic of `history`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from proxy.analytics import latency
from proxy.analytics.figures import Percentiles, Question, Sums
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.config import schema
from proxy.db.pool import Database
from proxy.trace.store import TraceStore
from proxy.trace.stored import Filters
from tests.analytics.history import ZONES, Call, Request, Sum, call_sums, generate, sums

SETTINGS = schema.Database()
FIRST = date(2026, 9, 20)
DAYS = 60
HISTORY = generate(800, FIRST, DAYS)


async def store(url: str, requests: Iterable[Request]) -> None:
    database = Database(SETTINGS)
    await database.connect(url)
    traces = TraceStore(database, SETTINGS)
    async with database.transaction() as connection:
        for project, zone in ZONES.items():
            if project != "unknown":
                await connection.execute(
                    "INSERT INTO projects (id, organization_id, name, config) VALUES ($1, 'default-org', $1, $2)",
                    project,
                    {"timeZone": zone},
                )
    requests = list(requests)
    for at in range(0, len(requests), 200):
        batch = [request.record() for request in requests[at : at + 200]]
        for _ in range(2):  # the second time is a replay
            async with database.transaction() as connection:
                await traces.apply(connection, batch)
    async with database.acquire() as connection:  # of most days, so that ranges are read from blocks and days
        while await connection.fetchval("SELECT sidegate_make_block($1)", FIRST + timedelta(days=DAYS - 7)):
            pass
    await database.close()


@pytest.fixture(scope="module")
def history_url(postgres, migrated_template: str):
    url = postgres.create_database(migrated_template)
    asyncio.run(store(url, HISTORY))
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def analytics(history_url: str) -> AsyncIterator[Analytics]:
    database = Database(SETTINGS)
    await database.connect(history_url)
    yield Analytics(database)
    await database.close()


def assert_same(found: Sums, expected: Sum) -> None:
    assert (found.requests, found.calls, found.errors) == (expected.requests, expected.calls, expected.errors)
    assert (found.input_tokens, found.output_tokens) == (expected.input, expected.output)
    assert found.cost == Decimal(expected.nanos) / 10**9
    assert (found.timed, found.duration_us) == (len(expected.us), sum(expected.us))


def periods(period: str) -> Callable[[Request], date]:
    def first(request: Request) -> date:
        day = request.day
        return {
            "day": day,
            "week": day - timedelta(days=day.weekday()),
            "month": day.replace(day=1),
        }[period]

    return first


def _local(project: str, *when: int) -> datetime:
    return datetime(*when, tzinfo=ZoneInfo(ZONES[project]))


RANGES = {
    "all": (date(2026, 1, 1), date(2026, 12, 31)),
    "days": (date(2026, 10, 1), date(2026, 10, 31)),
    "one day": (date(2026, 11, 1), date(2026, 11, 1)),
    "moments": (datetime(2026, 10, 2, 3, 4, 5, 678000, UTC), datetime(2026, 11, 3, 22, 50, 1, tzinfo=UTC)),
    "within a day": (datetime(2026, 10, 7, 1, 2, tzinfo=UTC), datetime(2026, 10, 7, 3, 3, tzinfo=UTC)),
    "within a quarter": (datetime(2026, 10, 6, 23, 58, tzinfo=UTC), datetime(2026, 10, 7, 0, 3, tzinfo=UTC)),
    "quarters": (datetime(2026, 10, 6, 18, 15, tzinfo=UTC), datetime(2026, 10, 9, 0, 45, tzinfo=UTC)),
    "nothing": (date(2027, 1, 1), date(2027, 2, 1)),
}


def _chosen(requests: Iterable[Request], since: date, until: date) -> list[Request]:
    chosen = []
    for request in requests:
        after = request.at >= since if isinstance(since, datetime) else request.day >= since
        before = request.at < until if isinstance(until, datetime) else request.day <= until
        if after and before:
            chosen.append(request)
    return chosen


@pytest.mark.parametrize("user", [None, "alice"])
@pytest.mark.parametrize("project", [None, "lab", "bank"])
@pytest.mark.parametrize("name", RANGES)
async def test_every_figure_is_that_of_plain_arithmetic(
    name: str, project: str | None, user: str | None, analytics: Analytics
) -> None:
    since, until = RANGES[name]
    chosen = [
        request
        for request in _chosen(HISTORY, since, until)
        if project in (None, request.project) and user in (None, request.user)
    ]
    period = ("day", "week", "month")[len(name) % 3]
    found = await analytics.usage(Question(project_id=project, user_id=user, since=since, until=until, period=period))
    assert_same(found.total, sums(chosen, lambda _: None).get(None, Sum()))
    expected = sums(chosen, periods(period))
    assert list(found.by_period) == sorted(expected)
    for first, part in expected.items():
        assert_same(found.by_period[first], part)
    for by_name, key in (
        (found.by_layer, lambda call: call.layer or "none"),
        (found.by_model, lambda call: call.model),
    ):
        expected_calls = call_sums(chosen, key, lambda _: True)
        assert by_name.keys() == expected_calls.keys()
        for model, part in expected_calls.items():
            assert_same(by_name[model], part)


@pytest.mark.parametrize("user", [None, "*"])
@pytest.mark.parametrize(("layer", "model"), [("L1", None), (None, "gpt-4o"), ("L1", "gpt-4o"), ("none", "gpt-4o")])
async def test_filters_by_layer_and_model_sum_their_calls(
    layer: str | None, model: str | None, user: str | None, analytics: Analytics
) -> None:
    def keep(call: Call) -> bool:
        return (layer is None or (call.layer or "none") == layer) and (model is None or call.model == model)

    chosen = [request for request in HISTORY if user in (None, request.user)]
    found = await analytics.usage(
        Question(user_id=user, layer=layer, model=model, since=RANGES["all"][0], until=RANGES["all"][1])
    )
    [total] = call_sums(chosen, lambda _: "all", keep).values()
    assert_same(found.total, total)
    for by_name, key in (
        (found.by_layer, lambda call: call.layer or "none"),
        (found.by_model, lambda call: call.model),
    ):
        expected = call_sums(chosen, key, keep)
        assert by_name.keys() == expected.keys()
        for name, part in expected.items():
            assert_same(by_name[name], part)


async def test_filter_by_type_keeps_those_requests(analytics: Analytics) -> None:
    found = await analytics.usage(Question(request_type="chat", since=RANGES["all"][0], until=RANGES["all"][1]))
    assert_same(found.total, sums([request for request in HISTORY if request.type == "chat"], lambda _: 0)[0])


async def test_users_and_projects_are_those_who_spent_most(analytics: Analytics) -> None:
    since, until = RANGES["days"]
    _, users = await analytics.users(Question(project_id="lab", since=since, until=until), 10)
    expected = sums((r for r in _chosen(HISTORY, since, until) if r.project == "lab"), lambda r: r.user or "")
    assert {share.name for share in users} == expected.keys()
    assert [share.sums.cost for share in users] == sorted((share.sums.cost for share in users), reverse=True)
    for share in users:
        assert_same(share.sums, expected[share.name])
    _, projects = await analytics.projects(Question(since=since, until=until), 10)
    expected = sums(_chosen(HISTORY, since, until), lambda r: r.project)
    assert {share.name: share.sums.requests for share in projects} == {
        name: part.requests for name, part in expected.items()
    }
    cached = sum(r.cached for r in _chosen(HISTORY, since, until))
    assert sum(share.sums.cache_hits for share in projects) == cached > 0


async def test_expensive_requests_come_in_order(analytics: Analytics) -> None:
    _, found = await analytics.expensive(
        Question(project_id="bank", since=RANGES["all"][0], until=RANGES["all"][1]), 20
    )
    dear = sorted(
        (r for r in HISTORY if r.project == "bank"), key=lambda r: sum(call.nanos for call in r.calls), reverse=True
    )
    assert [row.cost * 10**9 for row in found] == [sum(call.nanos for call in r.calls) for r in dear[:20]]
    assert {row.trace_id for row in found} == {r.id for r in dear[:20]}


@pytest.mark.parametrize("filters", [{"user_id": "alice"}, {"request_type": "chat"}, {"model": "auto"}])
async def test_expensive_requests_by_each_filter_are_those_of_it(filters: dict[str, str], analytics: Analytics) -> None:
    since, until = RANGES["moments"]
    _, found = await analytics.expensive(Question(since=since, until=until, **filters), 10)
    dear = sorted(
        (
            sum(call.nanos for call in r.calls)
            for r in _chosen(HISTORY, since, until)
            if filters.get("user_id") in (None, r.user) and filters.get("request_type") in (None, r.type)
        ),
        reverse=True,
    )
    assert [row.cost * 10**9 for row in found] == dear[:10]
    assert (await analytics.expensive(Question(since=since, until=until, model="opus"), 10))[1] == []


@pytest.mark.parametrize("project", [None, "lab", "bank"])
@pytest.mark.parametrize("most", [1, 3, 40, 1000])
@pytest.mark.parametrize("name", ["all", "days", "one day"])
async def test_percentiles_of_one_user_are_those_of_the_latest_requests(
    name: str, most: int, project: str | None, analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "USER_REQUESTS", most)
    since, until = RANGES[name]
    question = Question(user_id="alice", project_id=project, since=since, until=until)
    found = (await analytics.latency(question)).total.get("duration", Percentiles())
    zone = ZoneInfo(ZONES[project or "unknown"])  # of all projects the days are those of UTC
    own = [
        r
        for r in HISTORY
        if r.user == "alice" and project in (None, r.project) and since <= r.at.astimezone(zone).date() <= until
    ]
    latest = sorted(own, key=lambda r: r.at)[-most:]
    times = sorted(r.us / 1000 for r in latest if r.us is not None)
    assert found.number == len(times)
    assert found.p99 == (pytest.approx(times[-(-len(times) * 99 // 100) - 1], rel=0.045) if times else None)


async def test_latest_request_of_one_user_is_found_however_the_zones_lie(
    analytics: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "USER_REQUESTS", 1)
    for user, days in itertools.product(("alice", "bob"), range(10, DAYS)):
        until = FIRST + timedelta(days=days)
        question = Question(user_id=user, request_type="chat", since=FIRST, until=until)
        own = [r for r in HISTORY if (r.user, r.type) == (user, "chat") and r.at.date() <= until]
        us = max(own, key=lambda r: r.at).us
        found = (await analytics.latency(question)).total.get("duration", Percentiles())
        assert found.p50 == (None if us is None else pytest.approx(us / 1000, rel=0.045))


@pytest.mark.parametrize("first", range(0, DAYS, 7))
async def test_users_and_times_of_every_range_are_those_of_its_days(first: int, analytics: Analytics) -> None:
    for days, project, kind in itertools.product((1, 2, 5, 16, 31, 60), (None, "lab"), (None, "chat")):
        since = FIRST + timedelta(days=first)
        until = since + timedelta(days=days - 1)
        chosen = [r for r in _chosen(HISTORY, since, until) if project in (None, r.project) and kind in (None, r.type)]
        question = Question(since=since, until=until, project_id=project, request_type=kind)
        _, users = await analytics.users(question, 10)
        expected = sums(chosen, lambda r: r.user or "")
        assert [share.name for share in users] == sorted(expected, key=lambda name: (-expected[name].nanos, name))
        for share in users:
            assert_same(share.sums, expected[share.name])
        found = await analytics.latency(question)
        durations, first_bytes = (found.total.get(m, Percentiles()) for m in ("duration", "first_byte"))
        assert (durations.number, first_bytes.number) == (sum(r.us is not None for r in chosen), 0)
        by_model = call_sums(chosen, lambda call: call.model, lambda _: True)
        assert {name: part["first_byte"].number for name, part in found.by_model.items()} == {
            name: part.calls for name, part in by_model.items()
        }


async def test_percentiles_are_off_by_at_most_four_and_a_half_percent(analytics: Analytics) -> None:
    found = await analytics.latency(Question(since=RANGES["all"][0], until=RANGES["all"][1]))
    times = sorted(request.us / 1000 for request in HISTORY if request.us is not None)
    measured = found.total["duration"]
    assert measured.number == len(times)
    for percent, value in ((50, measured.p50), (95, measured.p95), (99, measured.p99)):
        exact = times[-(-len(times) * percent // 100) - 1]
        assert value == pytest.approx(exact, rel=0.045)
    calls = sorted(call.us / 1000 for r in HISTORY for call in r.calls if call.model == "opus")
    assert found.by_model["opus"]["duration"].p50 == pytest.approx(calls[-(-len(calls) // 2) - 1], rel=0.045)
    assert found.by_model["opus"]["first_byte"].number == len(calls)
    assert {tuple(part) for part in found.by_model.values()} == {("duration", "first_byte")}
    assert (await analytics.latency(Question(user_id="alice"))).by_model == {}


@pytest.mark.parametrize(("period", "days"), [("day", 30), ("week", 30 * 7), ("month", 30 * 30)])
async def test_without_dates_the_last_30_periods_are_meant(period: str, days: int, analytics: Analytics) -> None:
    found = await analytics.usage(Question(project_id="lab", period=period))
    zone = ZoneInfo(ZONES["lab"])
    start, end = found.time_range.start.astimezone(zone), found.time_range.end.astimezone(zone)
    now = datetime.now(zone)
    assert (start.hour, start.minute, end.hour, end.minute) == (0, 0, 0, 0)
    assert end > now >= end - timedelta(days=1)
    first = {"day": now, "week": now - timedelta(days=now.weekday()), "month": now.replace(day=1)}[period].date()
    for _ in range(29):
        first = {
            "day": first - timedelta(days=1),
            "week": first - timedelta(days=7),
            "month": (first - timedelta(days=1)).replace(day=1),
        }[period]
    assert start.date() == first
    assert abs((end - start).days - days) <= 20


async def test_questions_when_asked_then_postgres_does_not_compile_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server compiles from some estimated cost on, which took 8 s for a question of 60 ms."""
    database, seen = Database(SETTINGS), []
    await database.connect(database_url)
    fetch = asyncpg.Connection.fetch

    async def watched(connection: Any, *arguments: Any, **more: Any) -> Any:
        seen.append(await connection.fetchval("SHOW jit"))
        return await fetch(connection, *arguments, **more)

    try:
        async with database.acquire() as connection:
            await connection.execute("SET jit = on")
        monkeypatch.setattr(asyncpg.Connection, "fetch", watched)
        asked, about = Analytics(database), Question(since=FIRST, until=FIRST)
        await asked.usage(about)
        await asked.series(about, "model", 5)
        await asked.latency(about)
        for ask in (asked.findings, asked.users, asked.projects, asked.expensive):
            await ask(about, 5)
        await Rollup(database, 0).check(FIRST, None)
        await TraceStore(database, SETTINGS).search(Filters(), 5)
    finally:
        await database.close()
    assert len(seen) >= 9 and set(seen) == {"off"}
