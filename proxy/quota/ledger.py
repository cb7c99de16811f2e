"""Quotas in PostgreSQL: all SQL of `user_quotas`, `quota_leases` and `quota_windows`.

Everything that must be atomic is a function of the schema (migrations/002): it locks the quota's row, so the database
alone orders callers and keeps the time. This module calls these functions and gives names to their results.

As an applier of the journal's writer, the ledger charges the finals whose traces were new, in the transaction that
stored them, and then releases what leases returned: a lease record is journaled after the charges it relies on.

Failure mode: errors of asyncpg become `DatabaseUnavailable` where the connection came from; the caller decides.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from proxy.config.quota import Quota
from proxy.db.pool import Database
from proxy.db.transaction import Connection
from proxy.errors import DatabaseContended
from proxy.journal.frames import FINAL, LEASES, Record

_ACQUIRE = """
SELECT granted_tokens, granted_nanos, ttl_ms, window_no, window_ms, reset_at, max_tokens, max_nanos, settled_tokens,
    settled_nanos, available_tokens, available_nanos, elsewhere_tokens, elsewhere_nanos, holders, starved, project_quota
FROM sidegate_acquire($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

_RENEW = """
SELECT user_id, project_id, window_no, window_ms, reset_at, max_tokens, max_nanos, settled_tokens, settled_nanos,
    available_tokens, available_nanos, elsewhere_tokens, elsewhere_nanos, holders, starved, project_quota
FROM sidegate_renew($1, $2)
"""

_MISSING = "SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (SELECT FROM quota_leases WHERE lease_id = id)"

_SETTLE = """
SELECT over_tokens, over_nanos, unknown FROM sidegate_settle(convert_from($1::bytea, 'UTF8')::jsonb, $2, $3)
"""

_RELEASE = "SELECT sidegate_release(convert_from($1::bytea, 'UTF8')::jsonb)"

_LOCK = "SELECT count(*) FROM sidegate_lock_quota($1, $2, NULL)"

_MAKE = "SELECT sidegate_make_quota($1, $2, $3, $4, NULL)"

_STATUS = """
SELECT q.user_id, q.project_id, q.max_tokens_daily, q.current_tokens_today, q.held_tokens, q.burned_tokens,
    q.max_cost_daily, q.current_cost_today, q.held_nanos * 0.000000001, q.burned_nanos * 0.000000001,
    q.window_no, q.window_started_at, q.reset_at, q.updated_at, true
FROM user_quotas q WHERE q.user_id = $1 AND q.project_id = $2
"""

_UPDATE = """
UPDATE user_quotas SET max_tokens_daily = coalesce($3, max_tokens_daily), max_cost_daily = coalesce($4, max_cost_daily)
WHERE user_id = $1 AND project_id = $2
"""

_RESET = "SELECT sidegate_start_window($1, $2, clock_timestamp())"

# A window that has ended is shown as the empty one that the next write begins.
_TOP = """
SELECT q.user_id, q.project_id, q.max_tokens_daily, q.current_tokens_today, q.held_tokens, q.burned_tokens,
    q.max_cost_daily, q.current_cost_today, q.held_nanos * 0.000000001, q.burned_nanos * 0.000000001,
    q.window_no, q.window_started_at, q.reset_at, q.updated_at, true
FROM user_quotas q
WHERE ($1::text IS NULL OR q.project_id = $1) AND q.reset_at > now()
ORDER BY greatest(
        CASE WHEN q.max_tokens_daily > 0 THEN q.current_tokens_today / q.max_tokens_daily::numeric ELSE 1 END,
        CASE WHEN q.max_cost_daily > 0 THEN q.current_cost_today / q.max_cost_daily ELSE 1 END) DESC,
    q.current_tokens_today DESC, q.user_id, q.project_id
LIMIT $2
"""

_FORGET = "SELECT sidegate_forget_leases($1)"
_KEPT_DAYS = 7
_AGAIN_S = 0.02
"""How long a closed lease is remembered, for journals that are replayed late."""


@dataclass(frozen=True, slots=True)
class Balance:
    """A caller's quota as reported by PostgreSQL. Amounts of tokens and of nano-dollars."""

    window: int
    """Number of the current window."""
    reset_at: datetime
    window_s: float
    """Seconds to `reset_at`, as of the answer."""
    max_tokens: int
    max_nanos: int
    settled_tokens: int
    settled_nanos: int
    available_tokens: int
    """Neither settled, held nor burned; negative after a limit was lowered."""
    available_nanos: int
    elsewhere_tokens: int
    """Held by other replicas."""
    elsewhere_nanos: int
    holders: int
    """Replicas that hold a lease now."""
    starved: bool
    """Some replica was recently refused units that others hold."""
    project_quota: str | None
    """The project's own rules, as JSON."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request for a lease; nothing was granted if both amounts are 0."""

    tokens: int
    nanos: int
    ttl_s: float
    balance: Balance


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """A quota as the API shows it."""

    user_id: str
    project_id: str
    max_tokens: int
    tokens: int
    held_tokens: int
    burned_tokens: int
    max_cost: Decimal
    """Dollars, like all costs here."""
    cost: Decimal
    held_cost: Decimal
    burned_cost: Decimal
    window: int
    started_at: datetime
    reset_at: datetime
    updated_at: datetime
    exists: bool
    """False: the caller was never seen; these are the limits it would get."""


class Ledger:
    """The quotas of all callers. `holder`: the unique name of this process."""

    def __init__(self, database: Database, settings: Quota, holder: str) -> None:
        self._database = database
        self._holder = holder
        self.follow(settings)
        self.over_tokens = 0
        """Charged beyond what leases had granted, since the start; must stay 0. Likewise `over_nanos`."""
        self.over_nanos = 0
        self.unknown = 0
        """Charges whose lease PostgreSQL did not know."""
        self.changes = 0
        """How often a quota may have been changed from here, except by the writer's transactions."""

    def follow(self, settings: Quota) -> None:
        """Apply a changed configuration."""
        self._defaults = settings.default_tokens_daily, settings.default_cost_daily
        self._ttl = timedelta(seconds=settings.lease_ttl_s)

    async def acquire(
        self, user_id: str, project_id: str, lease_id: UUID, need: tuple[int, int], want: tuple[int, int]
    ) -> Grant:
        """Request a lease of at least `need`, at best `want` (tokens, nano-dollars). Raises DatabaseUnavailable.

        Idempotent: the same `lease_id` gets the same grant.
        """
        asked = (*need, *want, self._ttl, *self._defaults)
        (row,) = await self._change(_ACQUIRE, user_id, project_id, lease_id, self._holder, *asked)
        tokens, nanos, ttl_ms, *balance = row.values()
        return Grant(tokens, nanos, ttl_ms / 1000, _balance(balance))

    async def missing(self, lease_ids: Sequence[UUID]) -> Collection[UUID]:
        """Return the leases that PostgreSQL does not (or no longer) know. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            return {row["id"] for row in await connection.fetch(_MISSING, lease_ids)}

    async def renew(self, lease_ids: Sequence[UUID]) -> Mapping[tuple[str, str], Balance]:
        """Extend leases; return their callers' balances. Raises DatabaseUnavailable."""
        rows = await self._change(_RENEW, lease_ids, self._ttl)
        return {(row["user_id"], row["project_id"]): _balance(list(row.values())[2:]) for row in rows}

    async def apply(self, connection: Any, records: Sequence[Record]) -> Sequence[Record]:
        """Charge finals, then release what leases returned. `connection`: in the writer's transaction."""
        finals = _joined(record.body for record in records if record.kind is FINAL)
        if finals is not None:
            over_tokens, over_nanos, unknown = (await connection.fetchrow(_SETTLE, finals, *self._defaults)).values()
            self.over_tokens += over_tokens
            self.over_nanos += over_nanos
            self.unknown += unknown
        leases = _joined(record.body for record in records if record.kind in LEASES)
        if leases is not None:
            await connection.execute(_RELEASE, leases)
        return records

    async def status(self, user_id: str, project_id: str) -> QuotaRow:
        """Return a caller's quota of today. Raises DatabaseUnavailable."""
        async with self._database.transaction() as connection:
            exists = await connection.fetchval(_LOCK, user_id, project_id)
            if exists:
                return _row(await connection.fetchrow(_STATUS, user_id, project_id))
        return await self._unseen(user_id, project_id)

    async def update(self, user_id: str, project_id: str, max_tokens: int | None, max_cost: Decimal | None) -> QuotaRow:
        """Set limits, even of a caller never seen; `None` leaves one unchanged. Raises DatabaseUnavailable."""
        async with self._changing(self._database.transaction()) as connection:
            await connection.execute(_MAKE, user_id, project_id, *self._defaults)
            await connection.execute(_LOCK, user_id, project_id)
            await connection.execute(_UPDATE, user_id, project_id, max_tokens, max_cost)
            return _row(await connection.fetchrow(_STATUS, user_id, project_id))

    async def reset(self, user_id: str, project_id: str) -> QuotaRow | None:
        """Start a new window now; `None` for a caller never seen. Raises DatabaseUnavailable."""
        async with self._changing(self._database.transaction()) as connection:
            if not await connection.fetchval(_LOCK, user_id, project_id):
                return None
            await connection.execute(_RESET, user_id, project_id)
            return _row(await connection.fetchrow(_STATUS, user_id, project_id))

    async def top(self, project_id: str | None, limit: int) -> Sequence[QuotaRow]:
        """Return the callers with the highest share of a limit used, highest first. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            return [_row(row) for row in await connection.fetch(_TOP, project_id, limit)]

    async def maintain(self) -> None:
        """Delete closed leases that no journal can refer to any more."""
        async with self._database.transaction(patient=True) as connection:
            await connection.execute(_FORGET, _KEPT_DAYS)

    async def _change(self, statement: str, *arguments: object) -> Sequence[Any]:
        """Run one statement, again while other transactions are in its way; callers bound the time.

        It is no transaction of several round trips, so that no lock waits for a replica. Where the default isolation is
        another than READ COMMITTED, PostgreSQL then tells of those who change the row instead of waiting for them.
        """
        while True:
            try:
                async with self._changing(self._database.acquire()) as connection:
                    return await connection.fetch(statement, *arguments)
            except DatabaseContended:
                await asyncio.sleep(random.uniform(0, _AGAIN_S))

    @asynccontextmanager
    async def _changing(self, connected: AbstractAsyncContextManager[Connection]) -> AsyncIterator[Connection]:
        """Count a change when it is over, even one that failed, as PostgreSQL may have made it."""
        try:
            async with connected as connection:
                yield connection
        finally:
            self.changes += 1

    async def _unseen(self, user_id: str, project_id: str) -> QuotaRow:
        """Create the quota, read it, and roll back."""
        try:
            async with self._database.transaction() as connection:
                await connection.execute(_MAKE, user_id, project_id, *self._defaults)
                raise _Shown(_row(await connection.fetchrow(_STATUS, user_id, project_id)))
        except _Shown as shown:
            return shown.row


class _Shown(Exception):
    """Rolls back the transaction that it leaves."""

    def __init__(self, row: QuotaRow) -> None:
        super().__init__()
        self.row = QuotaRow(**{**{name: getattr(row, name) for name in QuotaRow.__slots__}, "exists": False})


def _balance(values: Sequence[Any]) -> Balance:
    window, window_ms, reset_at, *amounts = values
    return Balance(window, reset_at, window_ms / 1000, *amounts)


def _row(row: Any) -> QuotaRow:
    return QuotaRow(*row.values())


def _joined(bodies: Any) -> bytes | None:
    """Return JSON documents as one array, `None` without any."""
    joined = b",".join(bodies)
    return b"[" + joined + b"]" if joined else None
