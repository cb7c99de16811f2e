"""Refused records are listed, and stored and charged exactly once when the reason is gone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson
import pytest

from proxy.config import schema
from proxy.config.quota import Quota
from proxy.db.pool import Database
from proxy.journal.frames import FINAL, Kind, Record
from proxy.journal.segments import Journal
from proxy.journal.writer import Writer
from proxy.quota.ledger import Ledger
from proxy.trace import record
from proxy.trace.store import TraceStore
from tests.trace.exchanges import finished

NOW_MS = 1_770_000_000_000
FUNCTION = """
CREATE FUNCTION foreign_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.model = 'odd' THEN RAISE EXCEPTION 'zqSECRETzq %', NEW.id; END IF;
    RETURN NEW;
END $$
"""
TRIGGER = "CREATE TRIGGER foreign_rule BEFORE INSERT ON request_traces FOR EACH ROW EXECUTE FUNCTION foreign_rule()"
TRACES = "SELECT count(*) FROM request_traces"
CHARGED = """
SELECT sum(tokens) FROM (
    SELECT current_tokens_today AS tokens FROM user_quotas UNION ALL SELECT tokens FROM quota_windows) AS windows
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", schema.Journal(batch_delay_ms=1, retry_max_s=0.05))
    journal.open()
    yield journal
    journal.close()


def body(number: int, model: str) -> tuple[bytes, bytes]:
    """A finished request of 13 and 4 tokens that no lease covers, and its id."""
    x = finished(NOW_MS + number, model=model)
    document = orjson.loads(record.final(x))
    told = {"user_id": "ann", "project_id": "shop", "quota": {"unleased": "open"}, "input_tokens": 13}
    return UUID(x.trace_id).bytes, orjson.dumps(document | told | {"output_tokens": 4, "total_cost": "0.5"})


async def write(journal: Journal, url: str) -> Writer:
    database = Database(schema.Database())
    await database.connect(url)
    store = TraceStore(database, schema.Database())
    writer = Writer(
        journal,
        transaction=database.transaction,
        appliers=(store, Ledger(database, Quota(), "holder")),
        sift=store.refused,
        dead_letter=store.dead_letter,
        settings=schema.Journal(batch_delay_ms=1, retry_max_s=0.05),
    )
    running = asyncio.create_task(writer.run())
    assert await writer.flush(20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await database.close()
    return writer


async def told(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_record_that_a_foreign_trigger_refuses_is_charged_once_and_stored_later(sidegate, database_url, journal):
    for statement in (FUNCTION, TRIGGER):
        asyncio.run(told(database_url, statement))
    records = [body(number, "odd" if number == 7 else "gpt-4o-mini") for number in range(20)]
    for name, each in records:
        journal.append_final(name, each)
    stats = asyncio.run(write(journal, database_url)).stats()
    assert (stats.records, stats.dead_letters, stats.lost) == (19, 1, 0)
    assert asyncio.run(told(database_url, CHARGED)) == 20 * 17

    listed = sidegate("dead-letters", "list", DATABASE_URL=database_url)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert str(UUID(bytes=records[7][0])) in listed.stdout and "final" in listed.stdout and "charged" in listed.stdout
    assert "P0001" in listed.stdout and "zqSECRETzq" not in listed.stdout
    again = sidegate("dead-letters", "retry", DATABASE_URL=database_url)
    assert again.returncode == 1 and again.stdout.splitlines()[-1] == "stored 0, refused 1"
    assert "zqSECRETzq" not in again.stdout + again.stderr

    asyncio.run(told(database_url, "DROP TRIGGER foreign_rule ON request_traces"))
    # A journal whose cursor was lost is replayed before anybody retries.
    for name, each in records:
        journal.append_final(name, each)
    asyncio.run(write(journal, database_url))
    assert asyncio.run(told(database_url, TRACES)) == 19
    done = sidegate("dead-letters", "retry", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stored 1, refused 0\n", "")
    assert asyncio.run(told(database_url, TRACES)) == 20
    assert asyncio.run(told(database_url, CHARGED)) == 20 * 17
    assert sidegate("dead-letters", "list", DATABASE_URL=database_url).stdout == ""


@pytest.mark.parametrize("model", ["odd", "gpt-4o-mini"])
def test_two_finals_of_a_trace_of_which_one_is_refused_are_charged_once(database_url, journal, model):
    """Only a copied journal has them: it takes for interrupted what goes on elsewhere."""
    for statement in (FUNCTION, TRIGGER):
        asyncio.run(told(database_url, statement))
    (name, refused), (other, fine) = body(1, "odd"), body(2, "gpt-4o-mini")
    again = orjson.dumps(orjson.loads(refused) | {"model": model, "outcome": "interrupted"})
    for identity, each in ((name, refused), (name, again), (other, fine)):
        journal.append_final(identity, each)
    asyncio.run(write(journal, database_url))
    assert asyncio.run(told(database_url, CHARGED)) == 2 * 17


def test_record_that_was_not_charged_is_charged_when_it_is_stored(sidegate, database_url):
    name, each = body(1, "gpt-4o-mini")

    async def keep() -> None:
        database = Database(schema.Database())
        await database.connect(database_url)
        store = TraceStore(database, schema.Database())
        async with database.transaction() as connection:
            for kind, content in ((FINAL, each), (Kind.CONTENT, b"not json"), (Kind.LEASE_KEPT, b"not json")):
                letter = record_of(kind, b"\xff" * 16 if kind is Kind.LEASE_KEPT else name, content)
                assert await store.dead_letter(connection, letter, "SQLSTATE 22P02", is_charged=False)
        await database.close()

    asyncio.run(keep())
    done = sidegate("dead-letters", "retry", DATABASE_URL=database_url)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "stored 1, refused 2"
    assert asyncio.run(told(database_url, TRACES)) == 1
    assert asyncio.run(told(database_url, CHARGED)) == 17


@pytest.mark.parametrize(
    "raised", ["undefined_table", "insufficient_privilege", "lock_not_available", "22000", "P0001"]
)
def test_letter_that_is_refused_again_does_not_keep_those_after_it(sidegate, database_url, raised):
    for statement in (FUNCTION.replace("'zqSECRETzq %', NEW.id", f"USING ERRCODE = '{raised}'"), TRIGGER):
        asyncio.run(told(database_url, statement))

    async def keep() -> None:
        database = Database(schema.Database())
        await database.connect(database_url)
        store = TraceStore(database, schema.Database())
        async with database.transaction() as connection:
            for number, model in enumerate(["odd", "gpt-4o-mini"]):
                letter = record_of(FINAL, *body(number, model))
                assert await store.dead_letter(connection, letter, "SQLSTATE P0001", is_charged=False)
        await database.close()

    asyncio.run(keep())
    done = sidegate("dead-letters", "retry", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (1, "stored 1, refused 1", "")
    assert asyncio.run(told(database_url, CHARGED)) == 17


async def test_dead_letter_when_the_answer_to_an_unfinished_commit_is_lost_then_the_next_try_waits_for_it(
    database: Database, database_url: str
) -> None:
    letter = record_of(FINAL, *body(1, "gpt-4o-mini"))
    store, ledger = TraceStore(database, schema.Database()), Ledger(database, Quota(), "holder")

    async def keep() -> bool:
        async with database.transaction() as connection:
            is_new = await store.dead_letter(connection, letter, "SQLSTATE P0001", is_charged=True)
            if is_new:
                await ledger.apply(connection, [letter])
            return is_new

    async with database.transaction() as unfinished:
        assert await store.dead_letter(unfinished, letter, "SQLSTATE P0001", is_charged=True)
        await ledger.apply(unfinished, [letter])
        again = asyncio.create_task(keep())
        await asyncio.sleep(0.3)
    assert not await again
    assert await told(database_url, CHARGED) == 17
    assert await told(database_url, "SELECT count(*) FROM trace_dead_letters") == 1


async def test_dead_letter_when_the_same_record_is_stored_meanwhile_then_it_is_neither_kept_nor_charged(
    database: Database, database_url: str
) -> None:
    letter = record_of(FINAL, *body(1, "gpt-4o-mini"))
    store, ledger = TraceStore(database, schema.Database()), Ledger(database, Quota(), "holder")

    async def keep() -> bool:
        async with database.transaction() as connection:
            return await store.dead_letter(connection, letter, "SQLSTATE P0001", is_charged=True)

    async with database.transaction() as connection:
        assert await store.dead_letter(connection, letter, "SQLSTATE P0001", is_charged=False)
    (number,) = await store.letter_ids()
    async with database.transaction() as retrying:
        assert await store.take_letter(retrying, number) is not None
        await ledger.apply(retrying, await store.apply(retrying, [letter]))
        again = asyncio.create_task(keep())
        await asyncio.sleep(0.3)
    assert not await again
    assert not await keep()  # the trace is refused just before the retry, and put aside just after it
    assert not await store.letter_ids()
    assert await told(database_url, CHARGED) == 17


def record_of(kind: Kind, name: bytes, content: bytes) -> Record:
    return Record(kind, name, content, 0, 0)
