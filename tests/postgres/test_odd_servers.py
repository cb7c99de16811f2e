"""Settings that a DBA makes for a server, a database or a role, and databases of another kind: everything works alike.

Each case is a database of its own whose defaults every connection finds, as behind PgBouncer.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from proxy.analytics.figures import Question
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.config import schema
from proxy.db import migrate
from proxy.exchange import Principal
from proxy.trace.stored import Filters
from tests.conftest import Postgres
from tests.quota.replica import Replica, bound, charge, replicas

SETTINGS = {
    "serializable": "default_transaction_isolation = 'serializable'",
    "repeatable read": "default_transaction_isolation = 'repeatable read'",
    "far east": "timezone = 'Pacific/Kiritimati'",
    "far west": "timezone = 'Pacific/Pago_Pago'",
    "German dates": "datestyle = 'German, DMY'",
    "intervals": "intervalstyle = 'sql_standard'",
    "latin1": "client_encoding = 'LATIN1'",
    "floats": "extra_float_digits = -15",
    "hex": "bytea_output = 'escape'",
    "names first": "search_path = '$user', 'elsewhere', 'public'",
    "generic plans": "plan_cache_mode = 'force_generic_plan'",
    "nulls": "transform_null_equals = on",
    "row security": "row_security = off",
    "strings": "standard_conforming_strings = off",
    "quotes": "quote_all_identifiers = on",
    "tablespace": "default_tablespace = 'pg_default'",
    "arrays": "array_nulls = off",
    "locks": "lock_timeout = '1ms'",
}


async def told(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def name(url: str) -> str:
    return urlsplit(url).path[1:]


async def migrated(url: str) -> None:
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await migrate.up(connection)
    finally:
        await connection.close()


async def everything_works(url: str, directory: Path) -> None:
    """Let two replicas share a quota and store traces, then ask about them."""
    async with replicas(url, directory, 2, default_tokens_daily=500) as pair:
        asked = [one.ledger.acquire("alice", "default-project", uuid4(), (100, 0), (100, 0)) for one in pair * 5]
        grants = [grant.tokens for grant in await asyncio.gather(*asked)]
        assert sorted(grants) == [0] * 5 + [100] * 5, "both waited for each other, and no grant exceeds the limit"
        bob = Principal("bob", "default-project", "header")
        for one in pair:
            one.outage.note_answer()
            held = [await one.reserve(bound(50), bob) for _ in range(3)]
            for hold in held:
                charge(one, hold.settle(40, 7), 40, 7, bob)
        assert all(await asyncio.gather(*(one.writer.flush(10) for one in pair)))
        database, today = pair[0].database, datetime.now(UTC).date()
        assert (await pair[0].ledger.status("bob", "default-project")).tokens == 6 * 40
        found = await pair[0].store.search(Filters(), 4, None)
        rest = await pair[0].store.search(Filters(), 4, found.cursor)
        assert (len(found.traces), len(rest.traces), rest.cursor) == (4, 2, None)
        assert all(abs(trace.created_at - datetime.now(UTC)) < timedelta(minutes=5) for trace in found.traces)
        sums = await Analytics(database).usage(Question(since=today - timedelta(days=1), until=today))
        assert (sums.total.requests, sums.total.cost) == (6, 6 * Decimal(7) / 10**9)
        days = {trace.created_at.astimezone(UTC).date() for trace in found.traces}
        assert not any([check.wrong for day in days for check in await Rollup(database, 0).check(day, None)])
        async with database.acquire() as connection:
            partitions = await connection.fetch(
                "SELECT relname FROM pg_class WHERE oid IN (SELECT tableoid FROM request_traces)"
            )
            assert {row[0] for row in partitions} <= {f"request_traces_p{day:%Y%m%d}" for day in days}


@pytest.fixture
def other(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Make a database by a clause of CREATE DATABASE, and return its DSN."""
    made: list[str] = []

    def make(clause: str) -> str:
        name = f"odd_{uuid4().hex}"
        postgres.run(told(postgres.url, f'CREATE DATABASE "{name}" TEMPLATE template0 {clause}'))
        made.append(urlsplit(postgres.url)._replace(path=f"/{name}").geturl())
        return made[-1]

    yield make
    for url in made:
        postgres.drop_database(url)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
async def test_server_when_set_otherwise_then_everything_works(
    empty_database_url: str, tmp_path: Path, setting: str
) -> None:
    await told(empty_database_url, f'ALTER DATABASE "{name(empty_database_url)}" SET {setting}')
    await migrated(empty_database_url)
    await everything_works(empty_database_url, tmp_path)


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout", "lock_timeout"])
async def test_statements_when_a_dba_limits_them_to_less_than_they_take_then_records_are_stored(
    database_url: str, tmp_path: Path, limit: str
) -> None:
    await told(
        database_url,
        """CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$""",
        "CREATE TRIGGER slow AFTER INSERT ON request_traces FOR EACH STATEMENT EXECUTE FUNCTION take_long()",
        f"""DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_settings WHERE name = '{limit}') THEN -- else an older PostgreSQL
                ALTER DATABASE "{name(database_url)}" SET {limit} = 500;
            END IF;
        END $$""",
    )
    await everything_works(database_url, tmp_path)


async def test_database_when_it_sorts_and_compares_otherwise_then_everything_works(
    other: Callable[[str], str], tmp_path: Path
) -> None:
    url = other("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'")
    await migrated(url)
    await everything_works(url, tmp_path)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_database_when_it_cannot_hold_every_text_then_nothing_is_made_in_it(
    other: Callable[[str], str], encoding: str
) -> None:
    with pytest.raises(migrate.MigrationFailed, match=f"is encoded in {encoding}.* ENCODING 'UTF8'"):
        await migrated(other(f"ENCODING '{encoding}' LOCALE 'C'"))


async def test_table_when_locked_for_long_then_requests_get_their_leases_and_records_wait(
    database_url: str, tmp_path: Path
) -> None:
    one = Replica(database_url, tmp_path, "one")
    one.database._settings = schema.Database(statement_timeout_s=0.3)
    locker = await asyncpg.connect(database_url)
    await one.start()
    try:
        async with locker.transaction():
            await locker.execute("LOCK TABLE request_traces IN ACCESS EXCLUSIVE MODE")
            hold = await one.reserve_now_or_ask()
            charge(one, hold.settle(40, 0), 40)
            assert not await one.writer.flush(1.0)
            await one.ledger.acquire("bob", "default-project", uuid4(), (1, 0), (1, 0))
            assert one.database.is_up
        assert await one.writer.flush(10)
        assert (await one.ledger.status("alice", "default-project")).tokens == 40
    finally:
        await locker.close()
        await one.stop()
