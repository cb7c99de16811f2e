"""Connections to PostgreSQL, and the one place where its errors are translated into ours.

`Database` exists before PostgreSQL is reachable and survives its outages: connections are opened on demand, tested
before use, and all discarded when one turns out to be dead. Nothing here waits long or retries: callers do. Where
PostgreSQL grants fewer connections than the pool may have, those that it has granted are shared.

A slow PostgreSQL is no outage. Work that nobody waits for is `patient`: a connection for it may take as long as a
statement. That also shows that PostgreSQL is slow; then a late connection is kept, though its caller gives up.

What callers of `acquire` and `transaction` have to handle:

    DatabaseUnavailable   unreachable, restarting, full, busy (deadlock, lock, timeout), or without a right that an
                          operator has to grant: try again later
    DatabaseTooSlow       one of these: a statement took too long, a smaller one may not
    DatabaseUnfit         one of these: a table, a function or a right is missing, perhaps to a trigger on some rows
    RecordRejected        the data do not fit (SQLSTATE class 22, 23 or 54): trying again cannot help
    ConstraintViolated    one of these: of class 23, a rule of the table that perhaps no row keeps
    anything else         a bug of ours; it propagates unchanged

Rule of the file: nothing may depend on a session, so that PgBouncer in transaction mode can sit in between. No prepared
statements, session settings, LISTEN, or locks that outlive a transaction.

Source: PostgreSQL documentation, appendix A "Error Codes"; PgBouncer, "Feature matrix for pooling modes"; tcp(7).
"""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import asyncpg
import orjson

from proxy.config.schema import Database as Settings
from proxy.db.connection_slots import ConnectionSlots
from proxy.db.health import HELD_DOWN_S, Health, State
from proxy.db.transaction import Connection, bounded_transaction
from proxy.errors import (
    ConstraintViolated,
    DatabaseContended,
    DatabaseTooSlow,
    DatabaseUnavailable,
    DatabaseUnfit,
    RecordRejected,
)

_READ_ONLY = "25006"
_FULL_CLASS = "53"
_OUTAGE_CLASSES = ("08", _FULL_CLASS, "58")
"""No connection, no room, and errors of its disk: a file of its own that it cannot read is no bug of ours."""
_ABANDONED = "25P03"
_OUTAGE_STATES = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", _ABANDONED, _READ_ONLY})
_NOT_MIGRATED_STATES = frozenset({"42P01", "42883", "42703"})
"""A table, function or column is missing: the migrations have not run yet, or belong to another version."""
_DENIED = "42501"
_CONTENDED_STATES = frozenset({"40001", "40P01", "55P03"})
_BUSY_STATES = frozenset({*_CONTENDED_STATES, "57014", "25P04"})
"""The database is fine: another transaction, a lock or a time limit was in the way."""
_REJECTED_CLASSES = ("22", "54")
_CONSTRAINT_CLASS = "23"
_CHECK_VIOLATION = "23514"
_TOO_MANY = "53300"
_REFUSALS = {
    "28000": "this role may not log in",
    "28P01": "wrong password",
    "3D000": "there is no such database",
    _TOO_MANY: "too many connections",
}

_FAILURES = (
    (ConnectionRefusedError, "nobody listens at its address"),
    (FileNotFoundError, "its socket is not there"),
    (socket.gaierror, "the name of its host is not known"),
    (asyncpg.exceptions.ClientConfigurationError, "a parameter of the database URL cannot be used"),
)
"""What an operator can mend; anything else is told by the name of its class, as messages may quote the URL."""
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a lost connection raises; the last, if it is lost between two steps of one call (`not connected`)."""
_PING_S = 1.0
"""An idle connection that does not answer in this time is dead, unless PostgreSQL is known to be slow."""
_CLOSE_S = 5.0
_KEEPALIVE_IDLE_S = 5
_KEEPALIVE_INTERVAL_S = 2
_KEEPALIVE_PROBES = 3
_UNACKNOWLEDGED_MS = 6000
_log = logging.getLogger(__name__)


class _NoMore(Exception):
    """A further connection was refused."""


class Connections(Protocol):
    """What lends connections: all of the pool, or a part of them (`db.pool_share`)."""

    def acquire(self, *, patient: bool = False) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection; errors as at the head of this module."""

    def transaction(self, *, patient: bool = False) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection inside a transaction."""


class Database:
    """A connection pool that survives outages of PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._health = Health()
        self._late: set[asyncio.Task[None]] = set()
        self._slots = ConnectionSlots(settings.pool_size, HELD_DOWN_S)

    @property
    def is_up(self) -> bool:
        """PostgreSQL answers at once; False before the first use, and some seconds after a full server's refusal."""
        return self._health.state == "up"

    @property
    def state(self) -> State:
        """Result of the latest use or probe. `slow`: it answers, but not while a request waits."""
        return self._health.state

    async def connect(self, dsn: str | None = None) -> None:
        """Create the pool; PostgreSQL need not be reachable yet. `dsn` replaces the one in the settings.

        Raises:
            ValueError: the DSN is malformed. The message does not quote it.
        """
        if dsn is None:
            dsn = self._settings.url.get_secret_value() if self._settings.url else ""
        _check_dsn(dsn)
        self._pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=self._settings.pool_size,
            timeout=max(self._settings.connect_timeout_s, self._settings.statement_timeout_s),  # `_tested` limits it
            command_timeout=self._settings.statement_timeout_s,
            max_inactive_connection_lifetime=60.0,
            statement_cache_size=0,  # PgBouncer: no prepared statements
            server_settings={"application_name": "sidegate"},
            init=_prepare_connection,
            reset=_keep_session,
        )

    @asynccontextmanager
    async def acquire(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection that has just been tested. In the block, errors of PostgreSQL become ours (see above).

        `patient`: wait for it for as long as a statement may take.

        Raises:
            DatabaseUnavailable: no connection within `acquire_timeout_s`, or it failed in the block.
            RecordRejected: the data of a statement do not fit.
        """
        pool = self._require_pool()
        connection, is_prompt = await self._take(pool, patient=patient)
        try:
            with self._translated(connection):
                yield connection
            self._health.note_answer(is_prompt=is_prompt)
        finally:
            try:
                await self._give_back(pool, connection)
            finally:
                self._slots.give_back()

    @asynccontextmanager
    async def transaction(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end of the block, rolled back if it raises.

        After `DatabaseUnavailable` at the end, it is unknown whether it was committed: retries must be idempotent.
        """
        async with self.acquire(patient=patient) as connection, bounded_transaction(connection):
            yield connection

    async def close(self) -> None:
        """Close all connections; those in use are cut after some seconds. `connect` may be called again."""
        pool, self._pool = self._pool, None
        self._health.state = "down"
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_S)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            pool.terminate()
        await asyncio.gather(*self._late)

    def _require_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            raise DatabaseUnavailable("The database is not connected.")
        return self._pool

    async def _take(self, pool: "asyncpg.Pool[asyncpg.Record]", *, patient: bool) -> tuple[Connection, bool]:
        """Take a slot, and a tested connection: a dead one would cost the caller a whole statement timeout.

        Also returns whether it answered at once.
        """
        settings = self._settings
        wait_s = settings.statement_timeout_s if patient else settings.acquire_timeout_s
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                await self._slots.take(until)
            except TimeoutError:
                raise DatabaseUnavailable("All connections to the database are busy.") from None
            try:
                return await self._tested(pool, until, patient=patient)
            except _NoMore:
                continue  # its slot is closed
            except BaseException:
                self._slots.give_back()
                raise

    async def _tested(
        self, pool: "asyncpg.Pool[asyncpg.Record]", until: float, *, patient: bool
    ) -> tuple[Connection, bool]:
        """Raises _NoMore: PostgreSQL grants no further connection, but this process has others; the slot is closed."""
        clock = asyncio.get_running_loop().time
        left_s = max(until - clock(), 0.001)
        try:
            lent = await pool.acquire(timeout=left_s if patient else min(left_s, self._settings.connect_timeout_s))
        except TimeoutError:
            if pool.get_size() >= pool.get_max_size() and not pool.get_idle_size():
                raise DatabaseUnavailable("All connections to the database are busy.") from None
            if not patient and self._health.is_slow():
                raise DatabaseUnavailable("The database is slow (no answer in time).") from None
            raise self._health.note_down("no connection in time") from None
        except asyncpg.PostgresError as error:  # includes a wrong password or missing database, which can be fixed
            if error.sqlstate == _TOO_MANY and self._slots.close(has_connections=pool.get_size() > 0):
                raise _NoMore from None
            self._health.note_refusal(error.sqlstate or "")
            meaning = _REFUSALS.get(error.sqlstate or "", type(error).__name__)
            raise self._health.note_down(f"connection refused: {meaning}, SQLSTATE {error.sqlstate}") from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            meaning = next((text for kind, text in _FAILURES if isinstance(error, kind)), type(error).__name__)
            raise self._health.note_down(f"no connection: {meaning}") from error
        began = clock()
        if not patient and self._health.is_slow():
            await self._ping_slow(pool, cast(Connection, lent))
        else:
            await self._ping(pool, cast(Connection, lent), max(until - began, _PING_S) if patient else _PING_S)
        return cast(Connection, lent), clock() - began <= _PING_S

    async def _ping(self, pool: "asyncpg.Pool[asyncpg.Record]", connection: Connection, limit_s: float) -> None:
        try:
            await connection.execute("SELECT 1", timeout=limit_s)
        except BaseException as error:
            if not _is_gone(connection):
                connection.terminate()
            if isinstance(error, _LOST):
                await pool.expire_connections()  # the others are probably dead, too
                raise self._health.note_down("an idle connection was dead") from error
            raise

    async def _ping_slow(self, pool: "asyncpg.Pool[asyncpg.Record]", connection: Connection) -> None:
        """Wait no longer than for any other, but leave the connection open: to open another takes PostgreSQL longer."""
        ping = asyncio.create_task(self._ping(pool, connection, self._settings.statement_timeout_s))
        try:
            await asyncio.wait((ping,), timeout=_PING_S)
            if not ping.done():
                raise DatabaseUnavailable("The database is slow (no answer in time).")
        except BaseException:
            # Also if it has answered just now: nobody else would return the connection of a caller that is cancelled.
            late = asyncio.create_task(self._when_late(pool, connection, ping))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            raise
        ping.result()

    async def _when_late(
        self, pool: "asyncpg.Pool[asyncpg.Record]", connection: Connection, ping: asyncio.Task[None]
    ) -> None:
        """Return a connection to the pool when it has answered, as its caller has given up."""
        try:
            await ping
            self._health.note_answer(is_prompt=False)
        except DatabaseUnavailable:
            return  # it is closed
        await self._give_back(pool, connection)

    async def _give_back(self, pool: "asyncpg.Pool[asyncpg.Record]", connection: Connection) -> None:
        try:
            await pool.release(cast(Any, connection))
        except _LOST as error:
            # The pool has dropped the connection already, and what was done on it is done: no failure of the caller's.
            _log.debug("a connection could not be returned to the pool: %s", type(error).__name__)

    @contextmanager
    def _translated(self, connection: Connection) -> Iterator[None]:
        """Turn errors into ours. Their texts may quote data, so of a refused record only names of the schema remain."""
        try:
            yield
        except asyncpg.PostgresError as error:
            if error.sqlstate == _READ_ONLY and not _is_gone(connection):
                # The primary no more, though it answers `SELECT 1` for ever: another connection finds the new one.
                connection.terminate()
            ours = self._of_sqlstate(error)
            if ours is error:
                raise
            raise ours from (None if isinstance(ours, RecordRejected) else error)
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            if isinstance(error, ValueError):  # an argument that cannot be encoded
                raise RecordRejected("a value does not fit the type of its column") from None
            if _is_gone(connection):
                raise self._health.note_down("connection lost") from error
            raise
        except (UnicodeEncodeError, OverflowError):  # the same, inside COPY
            raise RecordRejected("a value does not fit the type of its column") from None
        except OSError as error:
            if isinstance(error, TimeoutError) and not _is_gone(connection):
                # Our own limit. A long statement, or PostgreSQL is gone: the next test of a connection tells.
                raise DatabaseTooSlow("The database is busy (a statement took too long).") from error
            raise self._health.note_down(f"connection failed: {type(error).__name__}") from error

    def _of_sqlstate(self, error: asyncpg.PostgresError) -> Exception:
        state = error.sqlstate or ""
        if state == _CHECK_VIOLATION and error.table_name and not error.constraint_name:
            self._health.note_obstacle("a table has no partition for a row: attach one, or a default partition", error)
            return DatabaseUnavailable(f"A partition is missing (SQLSTATE {state}).")
        if state[:2] in _REJECTED_CLASSES:
            return RecordRejected(describe(error))
        if state[:2] == _CONSTRAINT_CLASS:
            return ConstraintViolated(describe(error))
        if state in _NOT_MIGRATED_STATES:
            self._health.note_schema(state)
            return DatabaseUnfit(f"The schema is not migrated to this version (SQLSTATE {state}).")
        if state == _DENIED:
            self._health.note_obstacle("the database role lacks a right: grant it", error)
            return DatabaseUnfit(f"The database role lacks a right (SQLSTATE {state}).")
        if state in _BUSY_STATES:
            kind = DatabaseContended if state in _CONTENDED_STATES else DatabaseUnavailable
            return kind(f"The database is busy (SQLSTATE {state}).")
        if state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES:
            self._health.note_refusal(state)
            return self._health.note_down(f"SQLSTATE {state}")
        return error


def describe(error: asyncpg.PostgresError) -> str:
    """Name an error, and what of the schema it is about, without its message, which may quote data."""
    names = (error.table_name, error.column_name, error.constraint_name)
    where = ", ".join(name for name in names if name)
    return f"SQLSTATE {error.sqlstate} {type(error).__name__}" + (f" ({where})" if where else "")


def _is_gone(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # lost, and so taken back by its pool already
        return True


def _check_dsn(dsn: str) -> None:
    try:
        parts = urlsplit(dsn)
        valid = parts.scheme in ("postgresql", "postgres") and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("the database URL must look like postgresql://user:password@host:5432/name")


async def _keep_session(connection: Connection) -> None:
    """Reset nothing between uses: nobody sets anything, and behind PgBouncer it would reach another server."""


async def _prepare_connection(connection: Connection) -> None:
    """Teach a new connection JSONB, and its socket not to wait for a peer that is gone."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )  # known type: asks the server nothing
    transport: asyncio.Transport = cast(Any, connection)._transport
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


def _encode_jsonb(value: object) -> bytes:
    """`bytes` are JSON already; anything else is encoded. The leading 1 is the version of the binary format."""
    return b"\x01" + (value if isinstance(value, bytes) else orjson.dumps(value))


def _decode_jsonb(data: bytes) -> object:
    return orjson.loads(data[1:])
