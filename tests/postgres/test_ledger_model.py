"""The SQL of quotas and its model are asked the same, thousands of times: same answers, same tables.

Chance from a seed, few ids, and time that jumps: ids repeat, leases expire and are renewed too late, settlements come
after their window, windows end in three time zones where clocks change, unknown leases are settled and ended. All times
lie in the future of the real clock, so that the trigger, which knows only that one, has nothing to do.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson
import pytest

from tests.quota.ledger_model import NOTHING, Balance, Caller, Charge, LedgerModel, Release, Units

T = TypeVar("T")

SEEDS = range(4)
STEPS = 1000
CHECK_EVERY = 50
START = datetime(2040, 11, 3, 12, tzinfo=UTC)
"""The night in which clocks go back in New York follows."""
DEFAULT = Units(1_000, 3_000_000_000)
PROJECTS: dict[str, dict[str, Any]] = {
    "kolkata": {"timeZone": "Asia/Kolkata", "quota": {"maxTokensDaily": 2_000, "maxCostDaily": 1.5}},
    "new-york": {"timeZone": "America/New_York", "quota": {"maxTokensDaily": -1, "maxCostDaily": "plenty"}},
}
LIMITS = {"kolkata": Units(2_000, 1_500_000_000)}
ZONES = {name: str(config["timeZone"]) for name, config in PROJECTS.items()}
CALLERS = [Caller(user, project) for project in ("kolkata", "made on demand", "new-york") for user in ("u",)]
CALLERS.append(Caller("v", "new-york"))
HOLDERS = ("a", "b", "c")
TTL = timedelta(seconds=30)
WEIGHTS = {"acquire": 50, "renew": 15, "settle": 15, "release": 12, "reset": 2, "limit": 2, "reconcile": 1}
STEPS_MS = {0: 10, 1: 5, 500: 20, 5_000: 20, 10_000: 20, 30_000: 10, 300_000: 3, 7_000_000: 2, 200_000_000: 1}
"""Steps of time, and how often they are taken."""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    for name, config in PROJECTS.items():
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name, config) VALUES ($1, 'default-org', $1, $2)",
            name,
            orjson.dumps(config).decode(),
        )
    yield connection
    await connection.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_sql_and_model_when_asked_the_same_then_they_agree(connection: asyncpg.Connection, seed: int) -> None:
    pair = Pair(connection, seed)
    for step in range(STEPS):
        in_sql, in_model = await pair.act()
        assert in_sql == in_model, f"seed {seed}, step {step}, {pair.told}"
        if step % CHECK_EVERY == 0 or step == STEPS - 1:
            assert list(pair.model.faults()) == [], f"seed {seed}, step {step}"
            in_sql, in_model = await pair.tables_of_sql(), pair.tables_of_model()
            for table, rows in in_model.items():
                assert in_sql[table] ^ rows == set(), f"seed {seed}, before step {step}, {table}"
    assert max(len(quota.windows) for quota in pair.model.quotas.values()) > 5
    assert pair.done.keys() == WEIGHTS.keys()


class Pair:
    """The same operations for both. An answer is a tuple that both give."""

    def __init__(self, connection: asyncpg.Connection, seed: int) -> None:
        self.random = random.Random(seed)
        self.connection = connection
        self.model = LedgerModel(DEFAULT, LIMITS, ZONES)
        self.at = START
        self.ids = {caller: [self._uuid() for _ in range(4)] for caller in CALLERS}
        self.done: Counter[str] = Counter()
        self.told: tuple[Any, ...] = ()
        """What was asked last, to find out what went wrong."""

    async def act(self) -> tuple[Any, Any]:
        """Do something on both sides, some time later; return both answers."""
        self.at += timedelta(milliseconds=self._one_of(STEPS_MS) - self._one_of({0: 9, 1_000: 1}))
        name = self._one_of(WEIGHTS)
        self.done[name] += 1
        operations: dict[str, Callable[[Caller], Coroutine[Any, Any, tuple[Any, Any]]]] = {
            "acquire": self._acquire,
            "renew": self._renew,
            "settle": self._settle,
            "release": self._release,
            "reset": self._reset,
            "limit": self._limit,
            "reconcile": self._reconcile,
        }
        return await operations[name](self.random.choice(CALLERS))

    def _one_of(self, weights: Mapping[T, int]) -> T:
        return self.random.choices(list(weights), list(weights.values()))[0]

    async def _acquire(self, caller: Caller) -> tuple[Any, Any]:
        lease_id, holder = self._id(caller), self.random.choice(HOLDERS)
        need, want = self.random.choice((NOTHING, self._units(2))), self._units(2)
        self.told = "acquire", caller, lease_id, holder, need, want, self.at
        row = await self.connection.fetchrow(
            "SELECT * FROM sidegate_acquire($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            *caller, lease_id, holder, need.tokens, need.nanos, want.tokens, want.nanos, TTL, *_default(), self.at,
        )  # fmt: skip
        grant = self.model.acquire(caller, lease_id, holder, need, want, TTL, self.at)
        in_sql = Units(row["granted_tokens"], row["granted_nanos"]), row["ttl_ms"], _answer(row)
        return in_sql, (grant.units, _ms(grant.ttl), _plain(grant.balance))

    async def _renew(self, caller: Caller) -> tuple[Any, Any]:
        holder = self.random.choice(HOLDERS)
        theirs = [lease.id for lease in self.model.leases.values() if lease.holder == holder][-20:]
        ids = [*self.random.sample(theirs, min(len(theirs), 3)), self._uuid()]
        self.told = "renew", ids, self.at
        rows = await self.connection.fetch("SELECT * FROM sidegate_renew($1, $2, $3)", ids, TTL, self.at)
        balances = self.model.renew(ids, TTL, self.at)
        in_sql = {Caller(row["user_id"], row["project_id"]): _answer(row) for row in rows}
        return in_sql, {key: _plain(balance) for key, balance in balances.items()}

    async def _settle(self, _: Caller) -> tuple[Any, Any]:
        charges = [self._charge(self.random.choice(CALLERS)) for _ in range(self.random.randint(1, 5))]
        self.told = "settle", charges, self.at
        row = await self.connection.fetchrow(
            "SELECT * FROM sidegate_settle($1, $2, $3, $4)", _json(map(_record, charges)), *_default(), self.at
        )
        over, unknown = self.model.settle(charges, self.at)
        return tuple(row), (over.tokens, over.nanos, unknown)

    async def _release(self, _: Caller) -> tuple[Any, Any]:
        releases = []
        for _ in range(self.random.randint(1, 3)):
            caller, is_end = self.random.choice(CALLERS), self.random.random() < 0.4
            releases.append(Release(self._id(caller), caller, NOTHING if is_end else self._units(6), is_end))
        self.told = "release", releases, self.at
        await self.connection.execute("SELECT sidegate_release($1, $2)", _json(map(_body, releases)), self.at)
        self.model.release(releases, self.at)
        return None, None

    async def _reset(self, caller: Caller) -> tuple[Any, Any]:
        self.told = "reset", caller, self.at
        if caller in self.model.quotas:
            await self.connection.execute("SELECT sidegate_start_window($1, $2, $3)", *caller, self.at)
            self.model.reset(caller, self.at)
        return None, None

    async def _limit(self, caller: Caller) -> tuple[Any, Any]:
        limit = self._units(1)
        self.told = "limit", caller, limit
        if caller in self.model.quotas:
            await self.connection.execute(
                """
                UPDATE user_quotas SET max_tokens_daily = $3, max_cost_daily = $4
                WHERE user_id = $1 AND project_id = $2""",
                *caller,
                limit.tokens,
                _dollars(limit.nanos),
            )
            self.model.limit(caller, limit)
        return None, None

    async def _reconcile(self, _: Caller) -> tuple[Any, Any]:
        grace = timedelta(minutes=self.random.randint(0, 10))
        self.told = "reconcile", grace, self.at
        freed = await self.connection.fetchval("SELECT sidegate_reconcile_quotas($1, $2)", grace, self.at)
        return freed, self.model.reconcile(grace, self.at)

    def _charge(self, caller: Caller) -> Charge:
        created_at = self.at - timedelta(milliseconds=self.random.choice((0, 60_000, 100_000_000, 300_000_000)))
        if self.random.random() < 0.15:
            return Charge(caller, created_at, unleased=self._units(20))
        return Charge(
            caller, created_at, [(self._id(caller), self._units(6)) for _ in range(self.random.randint(0, 3))]
        )

    def _units(self, part: int) -> Units:
        """Return up to a part of the default limit, often nothing in one dimension, often what fits exactly."""
        amounts = ((0, most // part, self.random.randint(0, most // part), most // 100) for most in _pair(DEFAULT))
        tokens, nanos = map(self.random.choice, amounts)
        return Units(tokens, nanos)

    def _id(self, caller: Caller) -> str:
        """Return one of a few ids; they are replaced one by one, and older ones come back now and then."""
        ids = self.ids[caller]
        if self.random.random() < 0.3:
            ids.append(self._uuid())
        return self.random.choice(ids[-5:] if self.random.random() < 0.9 else ids)

    def _uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    async def tables_of_sql(self) -> dict[str, set[tuple[Any, ...]]]:
        """Return what the tables hold, in the form of `tables_of_model`."""
        return {
            "user_quotas": await self._rows("""
                SELECT user_id, project_id, window_no, window_started_at, reset_at, max_tokens_daily, max_cost_daily,
                    current_tokens_today, current_cost_today, held_tokens, held_nanos, burned_tokens, burned_nanos,
                    starved_at
                FROM user_quotas"""),
            "quota_windows": await self._rows("""
                SELECT user_id, project_id, window_no, started_at, ended_at, max_tokens, max_cost, tokens, cost,
                    held_tokens, held_nanos, burned_tokens, burned_nanos
                FROM quota_windows"""),
            "quota_leases": await self._rows("""
                SELECT lease_id::text, user_id, project_id, window_no, holder, granted_tokens, granted_nanos,
                    spent_tokens, spent_nanos, state, expires_at, updated_at
                FROM quota_leases"""),
        }

    async def _rows(self, statement: str) -> set[tuple[Any, ...]]:
        return {tuple(row) for row in await self.connection.fetch(statement)}

    def tables_of_model(self) -> dict[str, set[tuple[Any, ...]]]:
        """Return what the tables have to hold."""
        quotas, windows, leases = [], [], []
        for quota in self.model.quotas.values():
            rows = [
                (*quota.caller, window.number, window.started_at, window.ends_at,
                 window.limit.tokens, _dollars(window.limit.nanos), window.settled.tokens,
                 _dollars(window.settled.nanos), *_pair(window.held), *_pair(window.burned))
                for window in quota.windows
            ]  # fmt: skip
            windows += rows[:-1]
            quotas.append((*rows[-1], quota.starved_at))
        for lease in self.model.leases.values():
            leases.append((
                lease.id, *lease.caller, lease.window.number, lease.holder, *_pair(lease.granted), *_pair(lease.spent),
                lease.state, lease.expires_at, lease.touched_at,
            ))  # fmt: skip
        return {"user_quotas": set(quotas), "quota_windows": set(windows), "quota_leases": set(leases)}


def _answer(row: asyncpg.Record) -> tuple[Any, ...]:
    return (
        row["window_no"], row["window_ms"], row["max_tokens"], row["max_nanos"], row["settled_tokens"],
        row["settled_nanos"], row["available_tokens"], row["available_nanos"], row["elsewhere_tokens"],
        row["elsewhere_nanos"], row["holders"], row["starved"],
    )  # fmt: skip


def _plain(balance: Balance) -> tuple[Any, ...]:
    return (
        balance.window, _ms(balance.window_left), *_pair(balance.limit), *_pair(balance.settled),
        *_pair(balance.available), *_pair(balance.elsewhere), balance.holders, balance.starved,
    )  # fmt: skip


def _record(charge: Charge) -> dict[str, Any]:
    """Return a final record, as far as settling reads it."""
    quota: dict[str, Any] = {"window": 1, "leases": [[lease, *_pair(units)] for lease, units in charge.shares]}
    amounts: dict[str, Any] = {}
    if charge.unleased is not None:
        quota["unleased"] = "open"
        half = charge.unleased.tokens // 2
        amounts = {"input_tokens": half, "output_tokens": charge.unleased.tokens - half}
        amounts["total_cost"] = str(_dollars(charge.unleased.nanos))
    caller = {"user_id": charge.caller.user_id, "project_id": charge.caller.project_id}
    return {**caller, "created_at": charge.created_at.isoformat(), "quota": quota, **amounts}


def _body(release: Release) -> dict[str, Any]:
    """Return the record of a lease."""
    return {
        "lease": release.lease_id,
        "user_id": release.caller.user_id,
        "project_id": release.caller.project_id,
        "keep_tokens": release.keep.tokens,
        "keep_nanos": release.keep.nanos,
        "ended": release.ended,
    }


def _json(documents: Any) -> str:
    return orjson.dumps(list(documents)).decode()


def _pair(units: Units) -> tuple[int, int]:
    return units.tokens, units.nanos


def _dollars(nanos: int) -> Decimal:
    return Decimal(nanos).scaleb(-9)


def _default() -> tuple[int, Decimal]:
    return DEFAULT.tokens, _dollars(DEFAULT.nanos)


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
