"""The end of a day under load: every request is charged to the window that admitted it, also where clocks are changed.

No clock is shifted: each project gets a time zone of its own, in POSIX's notation, whose midnight is some seconds away,
and whose clocks are changed in the night that follows. With the zones of the world and a shifted PostgreSQL:
`python -m bench.midnight`.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from bench.billing import CHAT, Ask, Pace, billing_provider
from bench.fleet import Accounts, Fleet, set_limits
from tests.fakes.provider import Provider

AHEAD_S, AFTER_S, RATE = 3.0, 2.0, 24
EDGE_S = 0.25
"""What the test knows of PostgreSQL's clock."""
HOURS = {"usual": 24, "spring": 23, "autumn": 25}

_WINDOWS = """
SELECT project_id, window_no, tokens, max_tokens, NULL::float8 AS hours FROM quota_windows
UNION ALL
SELECT project_id, window_no, current_tokens_today, max_tokens_daily,
    extract(epoch FROM reset_at - sidegate_day_start(project_id, window_started_at)) / 3600
FROM user_quotas
"""


@pytest.fixture
def biller() -> Iterator[Provider]:
    running = billing_provider(Pace(0.8, silent=0.1))
    yield running
    running.stop()


def zone(midnight: datetime, hours: int) -> str:
    """Return a zone where a day of so many hours begins at `midnight` (UTC, whole seconds)."""
    east_s = -(midnight.hour * 3600 + midnight.minute * 60 + midnight.second)
    east_s += 86_400 if east_s <= -43_200 else 0
    day = (midnight + timedelta(seconds=east_s)).timetuple().tm_yday
    year = (midnight + timedelta(seconds=east_s)).year
    if year % 4 == 0 and day > 59:
        day -= 1  # Julian days of these rules never count the 29th of February
    if hours == 24:
        return f"<D>{_offset(east_s)}"
    if hours == 23:
        return f"<D>{_offset(east_s)}<S>{_offset(east_s + 3600)},J{day}/2,J{_wrapped(day + 60)}/2"
    return f"<D>{_offset(east_s - 3600)}<S>{_offset(east_s)},J{_wrapped(day - 60)}/2,J{day}/3"


def _offset(east_s: int) -> str:
    """POSIX counts westwards."""
    sign, left_s = ("-", east_s) if east_s >= 0 else ("+", -east_s)
    return f"{sign}{left_s // 3600:02}:{left_s // 60 % 60:02}:{left_s % 60:02}"


def _wrapped(day: int) -> int:
    return (day - 1) % 365 + 1


async def test_day_when_it_ends_under_load_then_each_request_belongs_to_the_window_that_admitted_it(
    biller: Provider, database_url: str, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path, biller, database_url, 2)
    connection = await asyncpg.connect(database_url)
    try:
        await fleet.start()
        now = await connection.fetchval("SELECT clock_timestamp()")
        midnight = (now + timedelta(seconds=AHEAD_S + 1)).replace(microsecond=0).astimezone(UTC)
        boundary_at = time.monotonic() + (midnight - now).total_seconds()
        for project, hours in HOURS.items():
            for user, limit in (("roomy", 10_000_000), ("tight", 400)):
                await set_limits(connection, (user, project), tokens=limit, zone=zone(midnight, hours))
        asks = await asked(fleet, boundary_at)
        await fleet.settle()
        await fleet.stop()
        accounts = await Accounts.read(connection, asks, biller)
        assert accounts.broken() == []
        admitted = {case: int(rows[0]["window"]) for case, rows in accounts.traces.items() if rows[0]["window"]}
        received_at = {(seen.value(b"x-case-id") or b"").decode(): seen.arrived_at for seen in biller.requests}
        for case, window in admitted.items():
            assert window == 1 or received_at[case] > boundary_at - EDGE_S
            assert window == 2 or accounts.asks[case].sent_at < boundary_at + EDGE_S
        assert_windows(accounts, admitted, await connection.fetch(_WINDOWS))
        assert_refusals(asks, boundary_at)
    finally:
        await connection.close()
        await fleet.stop()


async def asked(fleet: Fleet, boundary_at: float) -> list[Ask]:
    """Ask at a steady rate, from before the boundary until after it."""
    dice = random.Random(7)
    asks, running = [], []
    due = time.monotonic()
    while due < boundary_at + AFTER_S:
        members = {"max_tokens": 40, "stream": dice.random() < 0.7}
        asks.append(Ask(f"day-{len(asks)}", dice.choice(("roomy", "tight")), dice.choice([*HOURS]), CHAT, members))
        running.append(asyncio.create_task(asks[-1].go(dice.choice(fleet.proxies).address)))
        due += 1 / RATE
        await asyncio.sleep(max(due - time.monotonic(), 0))
    await asyncio.gather(*running)
    return asks


def assert_windows(accounts: Accounts, admitted: dict[str, int], windows: list[asyncpg.Record]) -> None:
    """Each window is the sum of its traces, within its limit, and as long as its day."""
    charged: Counter[tuple[str, int]] = Counter()
    settled: Counter[tuple[str, int]] = Counter()
    for case, window in admitted.items():
        trace = accounts.traces[case][0]
        charged[trace["project_id"], window] += trace["tokens"]
    for row in windows:
        settled[row["project_id"], row["window_no"]] += row["tokens"]
        assert row["tokens"] <= row["max_tokens"]
        assert row["hours"] in (None, HOURS[row["project_id"]])
    assert settled == charged
    assert {window for _, window in charged} == {1, 2}


def assert_refusals(asks: list[Ask], boundary_at: float) -> None:
    """Only the tight limit refuses, and after midnight it is as if nothing had been used."""
    assert {(ask.user, ask.status) for ask in asks} == {("roomy", 200), ("tight", 200), ("tight", 429)}
    assert any(ask.user == "tight" and ask.status == 200 and ask.sent_at > boundary_at for ask in asks)
