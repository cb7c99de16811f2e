import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from proxy.config import schema
from proxy.db import migrate
from proxy.db.pool import Database
from proxy.errors import DatabaseUnavailable, RecordRejected
from proxy.exchange import Capture, Charge, Exchange, ToolCall, Usage
from proxy.journal.frames import Kind, Record
from proxy.journal.segments import Journal
from proxy.journal.writer import Writer
from proxy.openai.documents import printable
from proxy.trace import record
from proxy.trace import store as store_module
from proxy.trace.store import TraceStore
from proxy.trace.stored import Filters, StoredTrace
from tests.trace.exchanges import MODELS, begun, finished, planned

NOW_MS = time.time_ns() // 1_000_000
JSON_COLUMNS = {"routing_decisions", "llm_calls", "tool_calls", "phases", "client", "quota", "policy"}
SETTINGS = schema.Database()


def _final(x: Exchange) -> Record:
    return _raw(x.trace_id, record.final(x))


def _raw(trace_id: str, body: bytes, kind: Kind = Kind.FINAL) -> Record:
    return Record(kind, UUID(trace_id).bytes, body, 0, 0)


async def _apply(database: Database, store: TraceStore, *records: Record) -> list[Record]:
    async with database.transaction() as connection:
        return list(await store.apply(connection, records))


async def _count(database: Database, table: str) -> int:
    async with database.acquire() as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


async def _walk(store: TraceStore, filters: Filters, limit: int) -> list[StoredTrace]:
    found, cursor = [], None
    while True:
        page = await store.search(filters, limit, cursor)
        found += page.traces
        if page.cursor is None:
            return found
        cursor = page.cursor


async def test_trace_of_an_exchange_comes_back_with_every_fact(database: Database, store: TraceStore) -> None:
    x = finished(NOW_MS, conversation="thread-9", tool_results=(ToolCall("result", "call_0", "search", 900),))
    sent = _final(x)
    assert await _apply(database, store, sent) == [sent]
    trace = await store.get(UUID(x.trace_id))
    assert trace is not None
    body = orjson.loads(sent.body)
    for column, value in body.items():
        stored = getattr(trace, column)
        match column:
            case "id":
                assert stored == UUID(value)
            case "created_at":
                assert stored.timestamp() * 1000 == NOW_MS
            case "total_cost":
                assert (stored, str(stored)) == (Decimal("0.000123456"), "0.000123456")
            case _ if column in JSON_COLUMNS and value is not None:
                assert orjson.loads(stored) == value
            case _:
                assert stored == value, column
    assert trace.conversation_id == "thread-9"
    assert abs(trace.recorded_at.timestamp() - time.time()) < 60


async def test_exchanges_stopped_early_are_stored_too(database: Database, store: TraceStore) -> None:
    charge = Charge(Usage(300), "estimated", 5, True)
    rejected, asked = begun(NOW_MS), planned(NOW_MS)
    exchanges = {
        rejected.trace_id: record.final(rejected),
        asked.trace_id: record.interrupted(record.intent(asked, record.begin(asked)), lambda *_: charge),
        (free := planned(NOW_MS, operation=MODELS)).trace_id: record.interrupted(
            record.intent(free, record.begin(free)), lambda *_: charge
        ),
        (bare := finished(NOW_MS)).trace_id: record.final(bare, tracing=False),
    }
    assert len(await _apply(database, store, *(_raw(name, body) for name, body in exchanges.items()))) == 4
    interrupted = await store.get(UUID(asked.trace_id))
    assert interrupted is not None
    assert (interrupted.outcome, interrupted.total_cost, interrupted.total_duration_ms) == (
        "interrupted",
        Decimal("0.000000005"),
        None,
    )
    untraced = await store.get(UUID(bare.trace_id))
    assert untraced is not None
    assert (untraced.tool_calls, untraced.client, untraced.path, untraced.input_tokens) == ("[]", None, None, 100)


async def test_replayed_batch_changes_nothing_and_is_not_new(database: Database, store: TraceStore) -> None:
    xs = [finished(NOW_MS + i, conversation="c") for i in range(20)]
    first = [_final(x) for x in xs]
    assert await _apply(database, store, *first) == first
    before = await store.search(Filters(), 500)
    for x in xs:
        x.outcome = "timeout"
    replayed = [_final(x) for x in xs]
    fresh = _final(finished(NOW_MS + 99))
    assert await _apply(database, store, *replayed[:10], fresh, *replayed[10:]) == [fresh]
    after = await store.search(Filters(), 500)
    assert [trace for trace in after.traces if trace.id != UUID(bytes=fresh.trace_id)] == list(before.traces)


async def test_same_record_twice_in_one_batch_is_new_once(database: Database, store: TraceStore) -> None:
    one = _final(finished(NOW_MS))
    assert await _apply(database, store, one, one) == [one]
    assert await _count(database, "request_traces") == 1


async def test_records_of_other_kinds_are_passed_on(database: Database, store: TraceStore) -> None:
    x = planned(NOW_MS)
    lease = _raw(x.trace_id, record.intent(x, record.begin(x)), Kind.LEASE_ENDED)
    assert await _apply(database, store, lease) == [lease]
    assert await _apply(database, store) == []


async def test_contents_are_stored_beside_their_trace_and_once(database: Database, store: TraceStore) -> None:
    x = finished(NOW_MS)
    x.capture = Capture(100, request=b'{"a":"\xff\0"}')
    x.capture.add(b"data: [DONE]\n\n")
    kept = _raw(x.trace_id, record.content(x, "full") or b"", Kind.CONTENT)
    final = _final(x)
    assert await _apply(database, store, kept, final) == [kept, final]
    assert await _apply(database, store, kept, final) == []
    async with database.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM trace_contents")
    assert (row["trace_id"], row["request"], row["response"]) == (
        UUID(x.trace_id),
        b'{"a":"\xff\0"}',
        b"data: [DONE]\n\n",
    )
    assert (row["mode"], row["truncated"]) == ("full", False)


async def test_final_whose_content_is_there_already_is_new_alone(database: Database, store: TraceStore) -> None:
    x = finished(NOW_MS)
    x.capture = Capture(100, request=b"{}")
    kept = _raw(x.trace_id, record.content(x, "full") or b"", Kind.CONTENT)
    assert await _apply(database, store, kept) == [kept]
    final = _final(x)
    assert await _apply(database, store, kept, final) == [final]


POISON: dict[str, Callable[[dict[str, object]], bytes]] = {
    "nul": lambda row: orjson.dumps(row | {"model": "a\0b"}),
    "lone-surrogate": lambda row: orjson.dumps(row | {"model": "MARK"}).replace(b"MARK", rb"\ud83d"),
    "beyond-bigint": lambda row: orjson.dumps(row | {"input_tokens": 2**63}),
    "absurd-tokens": lambda row: orjson.dumps(row | {"input_tokens": "MARK"}).replace(b'"MARK"', b"1" + b"0" * 30),
    "not-a-number": lambda row: orjson.dumps(row | {"input_tokens": "MARK"}).replace(b'"MARK"', b"NaN"),
    "no-id": lambda row: orjson.dumps(row | {"id": None}),
    "not-utf8": lambda row: orjson.dumps(row | {"model": "MARK"}).replace(b"MARK", b"\xff"),
    "cut": lambda row: orjson.dumps(row)[:-5],
    "not-an-object": lambda row: b"17",
    "endless-cost": lambda row: orjson.dumps(row | {"total_cost": "1e30"}),
    "calls-not-a-list": lambda row: orjson.dumps(row | {"llm_calls": {}}),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_poison_record_in_a_batch_becomes_one_dead_letter(
    poison: Callable[[dict[str, object]], bytes], database: Database, store: TraceStore, tmp_path: Path
) -> None:
    settings = schema.Journal(batch_delay_ms=1)
    journal = Journal(tmp_path / "journal", settings)
    journal.open()
    bad = finished(NOW_MS)
    for place in range(500):
        x = bad if place == 321 else finished(NOW_MS + place)
        body = record.final(x)
        journal.append_final(UUID(x.trace_id).bytes, poison(orjson.loads(body)) if x is bad else body)
    writer = Writer(
        journal,
        transaction=database.transaction,
        appliers=(store,),
        sift=store.refused,
        dead_letter=store.dead_letter,
        settings=settings,
    )
    running = asyncio.create_task(writer.run())
    assert await writer.flush(15)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    journal.close()
    assert await _count(database, "request_traces") == 499
    async with database.acquire() as connection:
        letters = await connection.fetch("SELECT trace_id, reason, record FROM trace_dead_letters")
    assert [letter["trace_id"] for letter in letters] == [UUID(bad.trace_id)]
    assert letters[0]["record"] == poison(orjson.loads(record.final(bad)))
    assert letters[0]["reason"]
    assert bool(writer.stats().unexpected) is letters[0]["reason"].startswith("SQLSTATE 23")


async def test_dead_letter_of_the_same_record_is_kept_once(database: Database, store: TraceStore) -> None:
    bad = _raw(begun(NOW_MS).trace_id, b"not json")
    for _ in range(2):
        async with database.transaction() as connection:
            await store.dead_letter(connection, bad, "x" * 5000, is_charged=False)
    assert await _count(database, "trace_dead_letters") == 1


async def test_rejected_batch_leaves_nothing_behind(database: Database, store: TraceStore) -> None:
    with pytest.raises(RecordRejected):
        await _apply(database, store, _final(finished(NOW_MS)), _raw(begun(NOW_MS).trace_id, b"{}"))
    assert await _count(database, "request_traces") == 0


async def test_trace_of_a_day_without_partition_goes_to_the_default_one(database: Database, store: TraceStore) -> None:
    x = finished(1_500_000_000_000)
    await _apply(database, store, _final(x))
    assert await _count(database, "request_traces_default") == 1
    assert await store.get(UUID(x.trace_id)) is not None


async def test_maintain_makes_days_to_come_and_drops_those_past_retention(database: Database) -> None:
    store = TraceStore(database, schema.Database(partitions_ahead_days=20, retention_days=30))
    old, recent = finished(NOW_MS - 40 * 86_400_000), finished(NOW_MS)
    await _apply(database, store, _final(old), _final(recent))
    assert await store.maintain() == 0
    assert await store.get(UUID(old.trace_id)) is None
    assert await store.get(UUID(recent.trace_id)) is not None
    ahead = finished(NOW_MS + 20 * 86_400_000)
    await _apply(database, store, _final(ahead))
    assert await _count(database, "request_traces_default") == 0


async def test_lookup_by_id_reads_one_partition_only(database: Database) -> None:
    name = begun(NOW_MS).trace_id
    async with database.acquire() as connection:
        plan = await connection.fetch("EXPLAIN " + store_module._SELECT_ONE, record.created_at(name), UUID(name))
    scans = [row[0] for row in plan if "Scan" in row[0]]
    assert len(scans) == 1 and "Index Scan" in scans[0]


@pytest.mark.parametrize("statement", ["_INSERT_DEAD_LETTER", "_INSERT_TRACES"])
async def test_dead_letters_of_a_trace_are_found_without_reading_all(database: Database, statement: str) -> None:
    name = begun(NOW_MS).trace_id
    letter = UUID(name), "reason", b"{}", 2, True, record.created_at(name)
    values = letter if statement == "_INSERT_DEAD_LETTER" else (b"[]",)
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN " + getattr(store_module, statement), *values)
    assert any("trace_dead_letters_trace_id_idx" in row[0] for row in plan)


CONVERSATIONS = {
    "text": ("CREATE TABLE conversations (id text PRIMARY KEY, title text)", "'known'", "known"),
    "varchar": ("CREATE TABLE conversations (id varchar(40) PRIMARY KEY)", "'known'", "known"),
    "uuid": (
        "CREATE TABLE conversations (id uuid PRIMARY KEY)",
        "'0192f0c1-7f5e-7cc3-98c4-dc0c0c07398f'",
        "0192F0C1-7F5E-7CC3-98C4-DC0C0C07398F",
    ),
    "bigint": (
        "CREATE TABLE conversations (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
        "42",
        "42",
    ),
    "strict": ("CREATE TABLE conversations (id text PRIMARY KEY, title text NOT NULL)", "'known', 'A title'", "known"),
}


@pytest.mark.parametrize(("create", "row", "reference"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
async def test_conversations_of_the_application_are_linked_whatever_their_type(
    create: str, row: str, reference: str, empty_database_url: str
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(create)
    await connection.execute(f"INSERT INTO conversations VALUES ({row})")
    await migrate.up(connection)
    await connection.close()
    database = Database(SETTINGS)
    await database.connect(empty_database_url)
    store = TraceStore(database, SETTINGS)
    known, strange, none = (finished(NOW_MS, conversation=name) for name in (reference, "no such: \u20ac '", None))
    assert len(await _apply(database, store, *map(_final, (known, strange, none)))) == 3
    found = await store.get(UUID(known.trace_id))
    assert found is not None and found.conversation_id is not None
    assert found.conversation_id.lower() == reference.lower()
    page = await store.search(Filters(conversation=found.conversation_id), 10)
    assert [trace.id for trace in page.traces] == [UUID(known.trace_id)]
    # A reference that cannot become a row of theirs still stands in the trace and is found by it.
    page = await store.search(Filters(conversation="no such: \u20ac '"), 10)
    assert [trace.id for trace in page.traces] == [UUID(strange.trace_id)]
    await database.close()


async def test_conversation_of_our_own_table_is_made_once_for_many_traces(
    database: Database, store: TraceStore
) -> None:
    xs = [finished(NOW_MS + i, conversation=f"thread-{i % 3}", user=f"user-{i}") for i in range(30)]
    await _apply(database, store, *map(_final, xs))
    assert await _count(database, "conversations") == 3
    page = await store.search(Filters(conversation="thread-1"), 500)
    assert {trace.id for trace in page.traces} == {UUID(x.trace_id) for x in xs[1::3]}


async def test_each_filter_finds_what_it_names_and_nothing_else(database: Database, store: TraceStore) -> None:
    wanted = finished(
        NOW_MS - 5000, user="w'; --", project="p%_", model="m\\%", conversation="c' OR 1=1", cost_nanos=9_000_000_000
    )
    wanted.outcome, wanted.delivery.status = "truncated", 299
    others = [finished(NOW_MS + i) for i in range(5)]
    free = finished(NOW_MS - 4000, operation=MODELS)
    await _apply(database, store, *map(_final, [wanted, free, *others]))
    at = record.created_at(wanted.trace_id)
    filters = [
        Filters(project_id="p%_"),
        Filters(user_id="w'; --"),
        Filters(conversation="c' OR 1=1"),
        Filters(model="m\\%"),
        Filters(outcome="truncated"),
        Filters(status=299),
        Filters(min_cost=Decimal("8.999999999")),
        Filters(until=record.created_at(free.trace_id)),
        Filters(since=at, until=record.created_at(free.trace_id), user_id="w'; --", status=299, request_type="chat"),
    ]
    for chosen in filters:
        page = await store.search(chosen, 10)
        assert [trace.id for trace in page.traces] == [UUID(wanted.trace_id)], chosen
    for nothing in (
        Filters(project_id="%"),
        Filters(user_id="w"),
        Filters(model="m_%"),
        Filters(request_type="' OR ''='"),
    ):
        assert (await store.search(nothing, 10)).traces == ()
    page = await store.search(Filters(request_type="models"), 10)
    assert [trace.id for trace in page.traces] == [UUID(free.trace_id)]


async def test_pages_have_no_gaps_or_repeats_while_traces_arrive(database: Database, store: TraceStore) -> None:
    dice = random.Random(7)
    there = [finished(NOW_MS - dice.randrange(3 * 86_400_000)) for _ in range(150)]
    there += [finished(NOW_MS - 777) for _ in range(20)]  # one millisecond, so only the id decides
    await _apply(database, store, *map(_final, there))
    done = asyncio.Event()

    async def arrive() -> None:
        while not done.is_set():
            late = [finished(NOW_MS + dice.randrange(-3 * 86_400_000, 60_000)) for _ in range(5)]
            await _apply(database, store, *map(_final, late))

    arriving = asyncio.create_task(arrive())
    found = [trace.id for trace in await _walk(store, Filters(), 7)]
    done.set()
    await arriving
    assert len(found) == len(set(found))
    assert {UUID(x.trace_id) for x in there} <= set(found)
    ordered = sorted(found, key=lambda name: (record.created_at_ms(str(name)), name), reverse=True)
    assert found == ordered


async def test_last_page_that_is_exactly_full_has_no_cursor(database: Database, store: TraceStore) -> None:
    await _apply(database, store, *(_final(finished(NOW_MS + i)) for i in range(4)))
    assert (await store.search(Filters(), 4)).cursor is None
    assert len(await _walk(store, Filters(), 2)) == 4
    assert (await store.search(Filters(user_id="nobody"), 4)).cursor is None


async def test_batch_of_500_is_written_in_well_under_a_second(database: Database, store: TraceStore) -> None:
    batch = [_final(finished(NOW_MS + i, conversation=f"c{i % 40}")) for i in range(500)]
    started = time.perf_counter()
    assert len(await _apply(database, store, *batch)) == 500
    assert time.perf_counter() - started < 1.0  # 30 ms on an idle machine


async def test_two_writers_with_the_same_records_store_each_once(database: Database, store: TraceStore) -> None:
    batch = [_final(finished(NOW_MS + i, conversation=f"c{i % 7}")) for i in range(100)]
    backwards = batch[::-1]
    news = await asyncio.gather(_apply(database, store, *batch), _apply(database, store, *backwards))
    assert sorted(one.trace_id for new in news for one in new) == sorted(one.trace_id for one in batch)


async def test_unknown_id_finds_nothing(store: TraceStore) -> None:
    assert await store.get(UUID(begun(NOW_MS).trace_id)) is None
    assert await store.get(UUID(int=uuid4().int & ~(0xFFFF << 112))) is None


def _long(seed: int, size: int) -> str:
    """Return a name whose characters take four bytes each and cannot be compressed."""
    dice = random.Random(seed)
    return "".join(chr(0x20000 + dice.randrange(0xA000)) for _ in range(size))


async def test_names_of_the_greatest_length_fit_into_every_index(database: Database, store: TraceStore) -> None:
    user, project, model, conversation = (printable(_long(seed, 256)) for seed in range(4))
    x = finished(NOW_MS, user=user, project=project, model=model, conversation=conversation)
    x.attempts[0].candidate = replace(x.attempts[0].candidate, model=model, layer="L0")
    x.attempts[0].meter.response_model = model
    assert await _apply(database, store, _final(x))
    assert (await store.search(Filters(user_id=user, conversation=conversation), 2)).traces


async def test_names_that_fit_into_no_index_are_refused_and_not_tried_for_ever(
    database: Database, store: TraceStore
) -> None:
    x = finished(NOW_MS, user=_long(1, 256), project=_long(2, 256), model=_long(3, 256))
    with pytest.raises(RecordRejected, match="54000"):
        await _apply(database, store, _final(x))


async def test_trace_without_a_partition_waits_for_one(
    database: Database, store: TraceStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.acquire() as connection:
        await connection.execute("ALTER TABLE request_traces DETACH PARTITION request_traces_default")
    x = finished(NOW_MS + 30 * 86_400_000)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="partition"):
            await _apply(database, store, _final(x))
    assert database.is_up and caplog.text.count("has no partition for a row") == 1
    async with database.acquire() as connection:
        await connection.execute("ALTER TABLE request_traces ATTACH PARTITION request_traces_default DEFAULT")
    assert await _apply(database, store, _final(x))


async def test_finals_that_a_trigger_refuses_now_and_then_are_not_told(database: Database, store: TraceStore) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            """
            CREATE SEQUENCE tries;
            CREATE FUNCTION foreign_rule() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('tries') % 3 <> 0 OR NEW.model = 'odd' THEN RAISE EXCEPTION 'busy'; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER foreign_rule BEFORE INSERT ON request_traces FOR EACH ROW EXECUTE FUNCTION foreign_rule()
            """
        )
    odd = _final(finished(NOW_MS, model="odd"))
    assert (await store.refused([*(_final(finished(NOW_MS)) for _ in range(5)), odd])).keys() == {odd.trace_id}


async def test_finals_that_a_trigger_or_a_rule_refuses_are_told_without_a_trace_of_the_question(
    database: Database, store: TraceStore
) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            """
            CREATE FUNCTION foreign_rule() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.model = 'odd' THEN
                    RAISE EXCEPTION 'zqSECRETzq' USING TABLE = NEW.path, CONSTRAINT = NEW.user_id;
                END IF;
                IF NEW.model = 'own' THEN RAISE EXCEPTION 'zqSECRETzq' USING ERRCODE = 'check_violation'; END IF;
                IF NEW.model = 'busy' THEN RAISE EXCEPTION 'busy' USING ERRCODE = '40P01'; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER foreign_rule BEFORE INSERT ON request_traces FOR EACH ROW EXECUTE FUNCTION foreign_rule();
            ALTER TABLE request_traces ADD CONSTRAINT small CHECK (model <> 'large')
            """
        )
    models = ["fine", "odd", "own", "busy", "large"]
    finals = {model: _final(finished(NOW_MS, model=model, conversation="c")) for model in models}
    content = _raw(begun(NOW_MS).trace_id, b"{}", Kind.CONTENT)
    told = await store.refused([*finals.values(), content])
    assert told.keys() == {finals[model].trace_id for model in ("odd", "own", "large")}
    assert told[finals["odd"].trace_id] == "SQLSTATE P0001 RaiseError"
    assert told[finals["own"].trace_id] == "SQLSTATE 23514 CheckViolationError"
    assert told[finals["large"].trace_id].startswith("SQLSTATE 23514 CheckViolationError (request_traces")
    assert told[finals["large"].trace_id].endswith(", small)")
    assert await store.refused([content]) == {}
    for table in ("request_traces", "conversations", "analytics_usage"):
        assert await _count(database, table) == 0
    stored = [finals["fine"]]
    assert await _apply(database, store, *stored) == stored
    assert await store.refused([finals["fine"]]) == {}
