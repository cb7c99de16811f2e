import asyncio
import logging
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import schema
from proxy.db import health, pool, transaction
from proxy.db.pool import Database, _decode_jsonb, _encode_jsonb
from proxy.errors import DatabaseUnavailable, RecordRejected
from tests.db.faulty_link import FaultyLink, faulty_link

SETTINGS = schema.Database(pool_size=3, acquire_timeout_s=0.5, connect_timeout_s=0.5, statement_timeout_s=5)


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(SETTINGS)
    await database.connect(empty_database_url)
    yield database
    await database.close()


@pytest.fixture
async def link(empty_database_url: str) -> AsyncIterator[FaultyLink]:
    async with faulty_link(empty_database_url) as link:
        yield link


@pytest.fixture
async def far(link: FaultyLink) -> AsyncIterator[Database]:
    """A database behind a link that can fail."""
    database = Database(SETTINGS)
    await database.connect(link.url)
    yield database
    await database.close()


async def answers(database: Database) -> bool:
    async with database.acquire() as connection:
        return await connection.fetchval("SELECT 1") == 1


async def is_reached(database: Database) -> bool:
    try:
        async with database.acquire():
            return True
    except DatabaseUnavailable:
        return False


async def hold_all(database: Database, release: asyncio.Event) -> list[asyncio.Task[None]]:
    """Occupy every connection of the pool."""
    held = asyncio.Semaphore(0)

    async def hold() -> None:
        async with database.acquire():
            held.release()
            await release.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(SETTINGS.pool_size)]
    async with asyncio.timeout(5):
        for _ in tasks:
            await held.acquire()
    return tasks


async def test_acquire_when_connected_then_marks_up(database: Database) -> None:
    assert not database.is_up
    assert await answers(database)
    assert database.is_up
    assert await is_reached(database)


async def test_acquire_when_a_parameter_of_the_url_is_wrong_then_that_is_said() -> None:
    database = Database(SETTINGS)
    await database.connect("postgresql://u:password@127.0.0.1:1/x?sslmode=password")
    with pytest.raises(DatabaseUnavailable) as caught:
        await answers(database)
    assert "a parameter of the database URL cannot be used" in caught.value.message
    assert "password" not in caught.value.message
    await database.close()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("127.0.0.1:1", "nobody listens at its address"),
        ("nowhere.invalid", "the name of its host is not known"),
        ("/x?host=/nowhere", "its socket is not there"),
    ],
)
async def test_acquire_when_nothing_is_there_then_it_says_what_to_mend(host: str, told: str) -> None:
    database = Database(SETTINGS)
    await database.connect(f"postgresql://u:password@{host}{'' if '?' in host else '/x'}")
    with pytest.raises(DatabaseUnavailable, match=f"no connection: {told}"):
        await answers(database)
    await database.close()


async def test_acquire_when_never_connected_or_closed_then_unavailable(empty_database_url: str) -> None:
    database = Database(SETTINGS)
    assert not await is_reached(database)
    await database.connect(empty_database_url)
    assert await is_reached(database)
    await database.close()
    assert (await is_reached(database), database.is_up) == (False, False)
    await database.close()


async def test_connect_when_postgres_is_away_then_works_once_it_comes(link: FaultyLink, far: Database) -> None:
    await link.down()
    with pytest.raises(DatabaseUnavailable):
        await answers(far)
    assert not far.is_up
    await link.up()
    assert await answers(far)


async def test_outage_at_the_start_then_each_reason_is_logged_once(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(SETTINGS)
    await database.connect(empty_database_url.replace("/test_", "/missing_"))
    for _ in range(3):
        assert not await is_reached(database)
    assert caplog.text.count("the database is unavailable: connection refused: there is no such database") == 1
    await database.close()


async def test_outage_when_over_then_dead_connections_are_replaced(link: FaultyLink, far: Database) -> None:
    release = asyncio.Event()
    tasks = await hold_all(far, release)
    release.set()
    await asyncio.gather(*tasks)
    await link.down()
    assert not await is_reached(far)
    await link.up()
    assert all([await answers(far) for _ in range(2 * SETTINGS.pool_size)])


async def test_connection_when_cut_in_use_then_unavailable_and_next_works(link: FaultyLink, far: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with far.acquire() as connection:
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(link.down()))
            await connection.fetchval("SELECT pg_sleep(4)")
    assert not far.is_up
    await link.up()
    assert await answers(far)


async def test_postgres_when_it_goes_silent_then_noticed_in_seconds(link: FaultyLink, far: Database) -> None:
    assert await answers(far)
    link.silent()
    for _ in range(2):  # first the idle connection, then a new one
        began = time.monotonic()
        assert not await is_reached(far)
        assert time.monotonic() - began < 3
    assert not far.is_up
    link._healthy.set()
    assert await answers(far)


@pytest.fixture
async def slow(link: FaultyLink, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A database whose every answer comes half as late again as a request waits, also that to a new connection."""
    monkeypatch.setattr(pool, "_PING_S", 0.1)
    database = Database(SETTINGS.model_copy(update={"connect_timeout_s": 0.1}))
    await database.connect(link.url)
    link.delay_s = 0.15
    yield database
    link.delay_s = 0.0
    await database.close()


async def test_postgres_when_slow_then_who_is_patient_works_and_nobody_else_waits(
    slow: Database, link: FaultyLink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        assert not await is_reached(slow)
        async with slow.transaction(patient=True) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert (slow.state, slow.is_up) == ("slow", False)
    opened = link.opened
    for _ in range(3):
        assert not await is_reached(slow)
        assert slow.state == "slow"
        async with slow.transaction(patient=True) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    assert link.opened <= opened + 1, "who gave up left the connection open"
    link.delay_s = 0.0
    monkeypatch.setattr(pool, "_PING_S", 1.0)
    assert await is_reached(slow)
    assert slow.is_up
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in told] == [
        "the database is unavailable", "the database is slow", "the database is available"
    ]  # fmt: skip


async def test_postgres_when_slow_then_its_callers_may_be_cancelled_and_no_connection_leaks(slow: Database) -> None:
    async with slow.acquire(patient=True):
        pass
    for _ in range(5):
        asking = asyncio.create_task(is_reached(slow))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(10):
        for _ in range(SETTINGS.pool_size + 1):
            async with slow.acquire(patient=True) as connection:
                assert await connection.fetchval("SELECT 1") == 1
    assert not slow._late


async def test_caller_when_cancelled_in_the_moment_in_which_a_slow_postgres_answers_then_no_connection_leaks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ping(*_: object) -> None:
        asking.cancel()

    database._health.note_answer(is_prompt=False)
    with monkeypatch.context() as patched:
        patched.setattr(database, "_ping", ping)
        for _ in range(SETTINGS.pool_size):
            asking = asyncio.create_task(answers(database))
            with pytest.raises(asyncio.CancelledError):
                await asking
    await asyncio.gather(*database._late)
    release = asyncio.Event()
    tasks = await hold_all(database, release)
    release.set()
    await asyncio.gather(*tasks)


async def test_postgres_when_slow_and_then_silent_then_down(
    slow: Database, link: FaultyLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow.acquire(patient=True):
        pass
    link.silent()
    assert not await is_reached(slow)
    assert slow.state == "slow"
    monkeypatch.setattr(health, "_SLOW_S", 0.0)
    assert not await is_reached(slow)
    assert slow.state == "down"
    link._healthy.set()


async def test_postgres_when_slow_and_then_gone_then_who_waited_does_not_keep_it_up(
    slow: Database, link: FaultyLink
) -> None:
    async with slow.acquire(patient=True):
        pass
    assert not await is_reached(slow)
    await link.down()
    async with asyncio.timeout(2):
        await asyncio.gather(*slow._late)
    assert slow.state == "down"
    await link.up()
    async with slow.acquire(patient=True):
        assert slow.state == "down", "until it has been used"
    assert slow.state == "slow"


async def test_postgres_when_silent_in_a_statement_then_the_statement_timeout_ends_it(link: FaultyLink) -> None:
    database = Database(SETTINGS.model_copy(update={"statement_timeout_s": 0.5}))
    await database.connect(link.url)
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        async with database.acquire() as connection:
            link.silent()
            await connection.fetchval("SELECT 1")
    assert time.monotonic() - began < 4
    link._healthy.set()
    assert await answers(database)
    await database.close()


async def test_statement_when_it_takes_too_long_then_unavailable_but_up(empty_database_url: str) -> None:
    database = Database(SETTINGS.model_copy(update={"statement_timeout_s": 0.2}))
    await database.connect(empty_database_url)
    assert await answers(database)
    with pytest.raises(DatabaseUnavailable, match="busy"):
        async with database.acquire() as connection:
            await connection.execute("SELECT pg_sleep(5)")
    assert database.is_up
    assert await answers(database)
    await database.close()


async def test_role_when_it_lacks_a_right_then_unavailable_but_up_and_the_log_names_it_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE guarded(n int)")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="42501"):
            async with database.transaction() as connection:
                await connection.execute("SET LOCAL ROLE pg_monitor")
                await connection.execute("SELECT n FROM guarded")
    assert database.is_up
    told = [record.__dict__["reason"] for record in caplog.records if "lacks a right" in record.message]
    assert told == ["permission denied for table guarded"]


async def test_backend_when_terminated_then_unavailable_and_next_works(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.acquire() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert not database.is_up
    assert await answers(database)
    assert database.is_up


async def test_server_when_it_became_read_only_then_another_connection_is_made(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "HELD_DOWN_S", 0.0)
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE written(n int)")
        # As on a primary that became a standby without losing its connections: it answers, and takes nothing.
        await connection.execute("SET default_transaction_read_only = on")
    for error in (pytest.raises(DatabaseUnavailable, match="25006"), nullcontext()):
        with error:
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO written VALUES (1)")
    assert database.is_up


async def test_socket_when_tcp_then_does_not_wait_for_a_dead_peer(far: Database) -> None:
    async with far.acquire() as connection:
        transport: Any = connection._transport  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6000


async def test_acquire_when_all_are_busy_then_unavailable_but_up(database: Database) -> None:
    release = asyncio.Event()
    tasks = await hold_all(database, release)
    with pytest.raises(DatabaseUnavailable, match="busy"):
        await answers(database)
    release.set()
    await asyncio.gather(*tasks)
    assert database.is_up
    assert await answers(database)


async def test_cancelled_users_when_many_then_no_connection_leaks(database: Database) -> None:
    chance = random.Random(1)
    for _ in range(30):
        tasks = [asyncio.create_task(answers(database)) for _ in range(6)]
        await asyncio.sleep(chance.random() * 0.004)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    release = asyncio.Event()
    tasks = await hold_all(database, release)
    release.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("state", ["08006", "57P01", "57P03", "53300", "53100", "58030", "58P01", "25006", "25P03"])
async def test_error_when_an_outage_then_unavailable_and_down(database: Database, state: str) -> None:
    await answers(database)
    with pytest.raises(DatabaseUnavailable):
        await raise_in(database, state)
    assert not database.is_up


@pytest.mark.parametrize("state", ["53100", "53200", "53300", "25006"])
async def test_server_when_full_or_read_only_then_probes_between_two_writes_do_not_say_it_is_up(
    database: Database, state: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    await answers(database)
    caplog.clear()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await raise_in(database, state)
        assert await is_reached(database)
        assert not database.is_up
    assert [record.message for record in caplog.records] == [f"the database is unavailable: SQLSTATE {state}"]
    monkeypatch.setattr(database._health, "_held_down_until", 0.0)
    assert await is_reached(database)
    assert database.is_up


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014", "25P04"])
async def test_error_when_in_the_way_of_others_then_unavailable_but_up(database: Database, state: str) -> None:
    await answers(database)
    with pytest.raises(DatabaseUnavailable):
        await raise_in(database, state)
    assert database.is_up


@pytest.mark.parametrize("state", ["22001", "22021", "22P02", "23502", "23503", "23505", "23514", "54000"])
async def test_error_when_data_do_not_fit_then_rejected_without_the_data(database: Database, state: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        await raise_in(database, state)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert state in str(caught.value)


@pytest.mark.parametrize("query", ["SELECT * FROM nowhere", "SELECT nothing()", "SELECT oidd FROM pg_class"])
async def test_error_when_the_schema_is_another_then_unavailable_and_told_once_it_lasts(
    database: Database, query: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        with pytest.raises(DatabaseUnavailable, match="not migrated"):
            async with database.acquire() as connection:
                await connection.fetchval(query)

    await ask()
    assert "schema" not in caplog.text  # a first start, whose migrations run now
    monkeypatch.setattr(health, "_MIGRATION_S", 0.0)
    await ask()
    await ask()
    assert caplog.text.count("the schema does not belong to this version") == 1


async def test_error_when_ours_then_propagates(database: Database) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with database.acquire() as connection:
            await connection.fetchval("SELEKT 1")
    with pytest.raises(asyncpg.InterfaceError):
        async with database.acquire() as connection:
            await asyncio.gather(connection.fetchval("SELECT 1"), connection.fetchval("SELECT 2"))


async def raise_in(database: Database, state: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'canary' USING ERRCODE = '{state}'; END $$")


@pytest.mark.parametrize(
    "value",
    [(2**63, "text"), (1, "nul \x00 canary"), (1, "surrogate \ud800 canary")],
    ids=["too large", "nul", "surrogate"],
)
@pytest.mark.parametrize("way", ["insert", "copy"])
async def test_value_when_postgres_cannot_hold_it_then_rejected(database: Database, value: Any, way: str) -> None:
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE held (number BIGINT, text TEXT)")
    with pytest.raises(RecordRejected) as caught:
        async with database.transaction() as connection:
            if way == "insert":
                await connection.execute("INSERT INTO held VALUES ($1, $2)", *value)
            else:
                await connection.copy_records_to_table("held", records=[value], columns=["number", "text"])
    assert "canary" not in str(caught.value)
    assert await answers(database)


async def test_transaction_when_block_raises_then_rolled_back(database: Database) -> None:
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE kept (value INTEGER)")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO kept VALUES (1)")
            raise ZeroDivisionError
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO kept VALUES (2)")
    async with database.acquire() as connection:
        assert [row["value"] for row in await connection.fetch("SELECT value FROM kept")] == [2]


async def test_transaction_when_its_process_vanishes_then_its_locks_are_free_in_seconds(
    link: FaultyLink, far: Database, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_ABANDONED_MS", 300)
    async with database.acquire() as connection:
        await connection.execute("CREATE TABLE shared AS SELECT 1 AS value")
    with pytest.raises(DatabaseUnavailable):
        async with far.transaction() as connection:
            await connection.execute("UPDATE shared SET value = 2")
            link.silent()  # no more of it reaches PostgreSQL, not even that it is gone
            async with database.transaction() as other:
                await other.execute("UPDATE shared SET value = value + 10", timeout=4)
            link._healthy.set()
            await connection.execute("UPDATE shared SET value = 3")
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT value FROM shared") == 11
    assert await answers(far)


async def test_transaction_when_left_open_by_acquire_then_next_user_starts_clean(database: Database) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # asyncpg reports it there
    async with database.acquire() as connection:
        await connection.execute("BEGIN")
    async with database.acquire() as connection:
        assert not connection.is_in_transaction()


async def test_jsonb_when_written_as_object_or_bytes_then_read_as_object(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("CREATE TABLE documents (number BIGINT, document JSONB)")
        await connection.execute("INSERT INTO documents VALUES (1, $1)", {"a": [1, "ü", None]})
        await connection.copy_records_to_table("documents", records=[(2, b'{"b": 2}'), (3, None), (4, "text")])
        rows = await connection.fetch("SELECT document FROM documents ORDER BY number")
    assert [row["document"] for row in rows] == [{"a": [1, "ü", None]}, {"b": 2}, None, "text"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_jsonb_codec_for_every_value_then_round_trips(value: Any) -> None:
    assert _decode_jsonb(_encode_jsonb(value)) == value
    assert _encode_jsonb(orjson.dumps(value)) == _encode_jsonb(value)


async def test_close_when_a_connection_is_lent_for_ever_then_is_cut(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.db.pool._CLOSE_S", 0.1)
    release = asyncio.Event()
    tasks = await hold_all(database, release)
    await database.close()
    release.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [None] * SETTINGS.pool_size


@pytest.mark.parametrize("dsn", ["", "mysql://u:canary@h/d", "postgresql://u:p@h:canary/d", "canary"])
async def test_connect_when_dsn_is_wrong_then_refused_without_quoting_it(dsn: str) -> None:
    with pytest.raises(ValueError, match="must look like") as caught:
        await Database(SETTINGS).connect(dsn)
    assert "canary" not in str(caught.value)


async def test_connect_when_no_dsn_is_given_then_takes_the_settings(empty_database_url: str) -> None:
    database = Database(SETTINGS.model_validate({**SETTINGS.model_dump(), "url": empty_database_url}))
    await database.connect()
    assert await is_reached(database)
    await database.close()


async def test_connect_when_password_or_database_is_wrong_then_unavailable(empty_database_url: str) -> None:
    for wrong in (
        empty_database_url.replace("/test_", "/missing_"),
        empty_database_url.replace("//", "//stranger.", 1),
    ):
        database = Database(SETTINGS)
        await database.connect(wrong)
        with pytest.raises(DatabaseUnavailable, match="SQLSTATE"):
            await answers(database)
        await database.close()


async def busily_answers(database: Database) -> bool:
    async with database.acquire() as connection:
        return await connection.fetchval("SELECT 1 FROM pg_sleep(0.005)") == 1


async def test_connections_when_the_role_may_have_fewer_than_the_pool_then_they_are_shared(
    link: FaultyLink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "HELD_DOWN_S", 0.05)
    monkeypatch.setattr(health, "HELD_DOWN_S", 0.05)
    caplog.set_level(logging.WARNING)
    link.most = 2
    database = Database(SETTINGS.model_copy(update={"pool_size": 8, "acquire_timeout_s": 5.0}))
    await database.connect(link.url)
    for _ in range(4):
        assert all(await asyncio.gather(*(busily_answers(database) for _ in range(20))))
        assert await answers(database)
    assert database.is_up
    assert sum("fewer connections" in record.getMessage() for record in caplog.records) == 1
    await asyncio.sleep(0.1)
    link.most = None
    assert all(await asyncio.gather(*(busily_answers(database) for _ in range(20))))
    assert link.open == 8, "places are tried again"
    await database.close()


async def test_connections_when_others_have_all_then_unavailable_and_why(link: FaultyLink, far: Database) -> None:
    link.most = 0
    with pytest.raises(DatabaseUnavailable, match="too many connections"):
        await answers(far)
    link.most = 1
    assert await answers(far)


async def test_connections_when_all_are_lent_then_a_caller_waits_for_one_and_no_longer_than_allowed(
    database: Database,
) -> None:
    release = asyncio.Event()
    tasks = await hold_all(database, release)
    waiting = [asyncio.create_task(answers(database)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(DatabaseUnavailable, match="busy"):
        await waiting[1]
    release.set()
    await asyncio.gather(*tasks)
    assert await answers(database)
    assert database._slots._free._value == SETTINGS.pool_size
    with pytest.raises(DatabaseUnavailable):
        await waiting[2]


async def test_connection_when_lost_between_two_steps_of_a_call_then_unavailable(database: Database) -> None:
    assert await answers(database)
    with pytest.raises(DatabaseUnavailable):
        async with database.acquire() as connection:
            connection.terminate()
            raise asyncpg.InternalClientError("not connected")  # asyncpg's word for it; a race, else not to be had
    assert not database.is_up
    assert await answers(database)


async def test_library_when_it_fails_on_a_living_connection_then_its_error_escapes(database: Database) -> None:
    with pytest.raises(asyncpg.InternalClientError):
        async with database.acquire():
            raise asyncpg.InternalClientError("a fault of its own")
