"""Connections to PostgreSQL, and the one place where its errors are translated into ours.

`Database` exists before PostgreSQL is reachable and survives its outages: connections are opened on demand, tested
before use, and all discarded when one turns out to be dead. Nothing here waits long or retries: callers do. Where
PostgreSQL grants fewer connections than the pool may have, those that it has granted are shared.

What callers of `acquire` and `transaction` have to handle:

    DatabaseUnavailable   unreachable, restarting, full, busy (deadlock, lock, timeout), or without a right that an
                          operator has to grant: try again later
    RecordRejected        the data do not fit (SQLSTATE class 22 or 23): trying again cannot help
    anything else         a bug of ours; it propagates unchanged

Rule of the file: nothing may depend on a session, so that PgBouncer in transaction mode can sit in between. No prepared
statements, session settings, LISTEN, or locks that outlive a transaction.

Source: PostgreSQL documentation, appendix A "Error Codes"; PgBouncer, "Feature matrix for pooling modes"; tcp(7).
"""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
import orjson

from proxy.config.schema import Database as Settings
from proxy.db.places import Places
from proxy.errors import DatabaseContended, DatabaseUnavailable, RecordRejected

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READ_ONLY = "25006"
_FULL_CLASS = "53"
_OUTAGE_CLASSES = ("08", _FULL_CLASS)
_ABANDONED = "25P03"
_OUTAGE_STATES = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", _ABANDONED, _READ_ONLY})
_NOT_MIGRATED_STATES = frozenset({"42P01", "42883", "42703"})
"""A table, function or column is missing: the migrations have not run yet, or belong to another version."""
_DENIED = "42501"
_CONTENDED_STATES = frozenset({"40001", "40P01"})
_BUSY_STATES = frozenset({*_CONTENDED_STATES, "55P03", "57014"})
"""The database is fine: another transaction, a lock or our own time limit was in the way."""
_REJECTED_CLASSES = ("22", "23")
_TOO_MANY = "53300"
_REFUSALS = {
    "28000": "this role may not log in",
    "28P01": "wrong password",
    "3D000": "there is no such database",
    _TOO_MANY: "too many connections",
}

_OTHER_SCHEMA = "the schema does not belong to this version"
_MIGRATION_S = 10.0  # migrations may take this long; after that, a missing table is worth a warning
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a lost connection raises; the last, if it is lost between two steps of one call (`not connected`)."""
_PING_S = 1.0  # an idle connection that does not answer in this time is dead
_CLOSE_S = 5.0
_KEEPALIVE_IDLE_S = 5
_KEEPALIVE_INTERVAL_S = 2
_KEEPALIVE_PROBES = 3
_UNACKNOWLEDGED_MS = 6000
_HELD_DOWN_S = 10.0
"""A full or read-only PostgreSQL refuses writes and answers every probe. For so long after a refusal, success of
anything else does not count as "up": longer than the journal's pause between two tries (`journal.retry_max_s`, 5 s)."""
_BOUNDED = (
    "SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL statement_timeout = 0; SET LOCAL jit = off;"
    " SET LOCAL standard_conforming_strings = on; SET LOCAL quote_all_identifiers = off"
)
_ABANDONED_MS = 5000
"""How long PostgreSQL waits for the next statement of a transaction. The locks of one whose client has vanished without
a word would otherwise stop every replica until its server's keepalive notices: two hours where nobody changed it."""

_log = logging.getLogger(__name__)


class _NoMore(Exception):
    """A further connection was refused."""


class Connections(Protocol):
    """What lends connections: all of the pool, or a part of them (`db.portion`)."""

    def acquire(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection; errors as at the head of this module."""

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection inside a transaction."""


class Database:
    """A connection pool that survives outages of PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._is_up = False
        self._held_down_until = 0.0
        self._told: set[str] = set()  # reasons already logged in this outage; the start counts as one
        self._other_schema_since: float | None = None
        self._places = Places(settings.pool_size, _HELD_DOWN_S)

    @property
    def is_up(self) -> bool:
        """Result of the latest use or probe; False before the first, and some seconds after a full server's refusal."""
        return self._is_up

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
            timeout=self._settings.connect_timeout_s,
            command_timeout=self._settings.statement_timeout_s,
            max_inactive_connection_lifetime=60.0,
            statement_cache_size=0,  # PgBouncer: no prepared statements
            server_settings={"application_name": "sidegate"},
            init=_prepare_connection,
            reset=_keep_session,
        )

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Lend a connection that has just been tested. In the block, errors of PostgreSQL become ours (see above).

        Raises:
            DatabaseUnavailable: no connection within `acquire_timeout_s`, or it failed in the block.
            RecordRejected: the data of a statement do not fit.
        """
        pool = self._require_pool()
        connection = await self._take(pool)
        try:
            with self._translated(connection):
                yield connection
            self._note_up()
        finally:
            try:
                await self._give_back(pool, connection)
            finally:
                self._places.give_back()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end of the block, rolled back if it raises.

        After `DatabaseUnavailable` at the end, it is unknown whether it was committed: retries must be idempotent.
        """
        async with self.acquire() as connection, bounded_transaction(connection):
            yield connection

    async def probe(self) -> bool:
        """Tell whether PostgreSQL answers now. Takes at most `acquire_timeout_s` and one second."""
        try:
            async with self.acquire():
                return True
        except DatabaseUnavailable:
            return False

    async def close(self) -> None:
        """Close all connections; those in use are cut after some seconds. `connect` may be called again."""
        pool, self._pool = self._pool, None
        self._is_up = False
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_S)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            pool.terminate()

    def _require_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            raise DatabaseUnavailable("The database is not connected.")
        return self._pool

    async def _take(self, pool: "asyncpg.Pool[asyncpg.Record]") -> Connection:
        """Take a place, and a tested connection: a dead one would cost the caller a whole statement timeout."""
        until = asyncio.get_running_loop().time() + self._settings.acquire_timeout_s
        while True:
            try:
                await self._places.take(until)
            except TimeoutError:
                raise DatabaseUnavailable("All connections to the database are busy.") from None
            try:
                return await self._tested(pool, until)
            except _NoMore:
                continue  # its place is closed
            except BaseException:
                self._places.give_back()
                raise

    async def _tested(self, pool: "asyncpg.Pool[asyncpg.Record]", until: float) -> Connection:
        """Raises _NoMore: PostgreSQL grants no further connection, but this process has others; the place is closed."""
        try:
            lent = await pool.acquire(timeout=max(until - asyncio.get_running_loop().time(), 0.001))
        except TimeoutError:
            if pool.get_size() >= pool.get_max_size() and not pool.get_idle_size():
                raise DatabaseUnavailable("All connections to the database are busy.") from None
            raise self._note_down("no connection in time") from None
        except asyncpg.PostgresError as error:  # includes a wrong password or missing database, which can be fixed
            if error.sqlstate == _TOO_MANY and self._places.close(has_connections=pool.get_size() > 0):
                raise _NoMore from None
            self._note_full(error.sqlstate or "")
            meaning = _REFUSALS.get(error.sqlstate or "", type(error).__name__)
            raise self._note_down(f"connection refused: {meaning}, SQLSTATE {error.sqlstate}") from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            is_misconfigured = isinstance(error, asyncpg.exceptions.ClientConfigurationError)
            reason = "a parameter of the database URL cannot be used" if is_misconfigured else type(error).__name__
            raise self._note_down(f"no connection: {reason}") from error
        try:
            await lent.execute("SELECT 1", timeout=_PING_S)
        except BaseException as error:
            if not _is_gone(lent):
                lent.terminate()
            await pool.expire_connections()  # the others are probably dead, too
            if isinstance(error, _LOST):
                raise self._note_down("an idle connection was dead") from error
            raise
        return cast(Connection, lent)

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
                raise self._note_down("connection lost") from error
            raise
        except (UnicodeEncodeError, OverflowError):  # the same, inside COPY
            raise RecordRejected("a value does not fit the type of its column") from None
        except OSError as error:
            if isinstance(error, TimeoutError) and not _is_gone(connection):
                # Our own limit. A long statement, or PostgreSQL is gone: the next test of a connection tells.
                raise DatabaseUnavailable("The database is busy (a statement took too long).") from error
            raise self._note_down(f"connection failed: {type(error).__name__}") from error

    def _of_sqlstate(self, error: asyncpg.PostgresError) -> Exception:
        state = error.sqlstate or ""
        if state[:2] in _REJECTED_CLASSES:
            return RecordRejected(_describe(error))
        if state in _NOT_MIGRATED_STATES:
            self._note_schema(state)
            return DatabaseUnavailable(f"The schema is not migrated to this version (SQLSTATE {state}).")
        if state == _DENIED:
            self._note_denied(error)
            return DatabaseUnavailable(f"The database role lacks a right (SQLSTATE {state}).")
        if state in _BUSY_STATES:
            kind = DatabaseContended if state in _CONTENDED_STATES else DatabaseUnavailable
            return kind(f"The database is busy (SQLSTATE {state}).")
        if state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES:
            self._note_full(state)
            return self._note_down(f"SQLSTATE {state}")
        return error

    def _note_up(self) -> None:
        if not self._is_up and time.monotonic() >= self._held_down_until:
            self._is_up = True
            self._told.clear()
            _log.info("the database is available")

    def _note_schema(self, state: str) -> None:
        """Warn once that the schema is another one; at a first start it is, until the migrations have run."""
        now = time.monotonic()
        self._other_schema_since = self._other_schema_since or now
        if now - self._other_schema_since >= _MIGRATION_S and _OTHER_SCHEMA not in self._told:
            self._told.add(_OTHER_SCHEMA)
            _log.warning(_OTHER_SCHEMA, extra={"sqlstate": state})

    def _note_denied(self, error: asyncpg.PostgresError) -> None:
        """Warn once of each missing right; PostgreSQL names it and the object, never data."""
        reason = str(error)
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("the database role lacks a right: grant it", extra={"reason": reason})

    def _note_full(self, state: str) -> None:
        if state[:2] == _FULL_CLASS or state == _READ_ONLY:
            self._held_down_until = time.monotonic() + _HELD_DOWN_S

    def _note_down(self, reason: str) -> DatabaseUnavailable:
        self._is_up = False
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("the database is unavailable: %s", reason)
        return DatabaseUnavailable(f"The database is not available ({reason}).")


@asynccontextmanager
async def bounded_transaction(connection: Connection) -> AsyncIterator[None]:
    """Run the block in a transaction that PostgreSQL rolls back if no statement comes for some seconds.

    What else a server or a role may be set to does not apply in it: another isolation than READ COMMITTED, in which two
    replicas that change a row would fail instead of waiting for each other; a limit for statements, instead of our own;
    the JIT compiler, which takes longer than our statements run; backslashes as escapes in strings; and quoted names,
    where PostgreSQL tells the text of a function or the name of a table. All is set for the transaction, not for the
    session, at the cost of one round trip. A process that was paused for longer finds its connection closed:
    `DatabaseUnavailable` in a block of `acquire`.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_BOUNDED.format(_ABANDONED_MS))
        yield


def _describe(error: asyncpg.PostgresError) -> str:
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
