"""Chains of responses on real PostgreSQL: one conversation, in whatever order and from wherever the traces arrive."""

import asyncio
import random
from collections.abc import Sequence
from itertools import permutations
from uuid import UUID, uuid4

import asyncpg
import pytest

from proxy.config import schema
from proxy.db import migrate
from proxy.db.pool import Database
from proxy.errors import DatabaseContended
from proxy.exchange import Exchange
from proxy.journal.frames import Kind, Record
from proxy.openai.operations import match
from proxy.trace import record
from proxy.trace.store import TraceStore
from tests.postgres.test_store import NOW_MS
from tests.trace.exchanges import finished

RESPONSES = match("POST", "/v1/responses", False)
SETTINGS = schema.Database()


def turn(
    number: int, continues: str | None = None, name: str | None = None, project: str = "shop", clock: int = 1
) -> Exchange:
    """Return the exchange whose answer was `resp_<number>`. `clock`: -1 where it runs backwards."""
    return finished(
        NOW_MS + clock * number,
        operation=RESPONSES,
        response_id=f"resp_{number}",
        continues=continues,
        conversation=name,
        project=project,
    )


def records(turns: Sequence[Exchange]) -> list[Record]:
    return [Record(Kind.FINAL, UUID(x.trace_id).bytes, record.final(x), 0, 0) for x in turns]


async def apply(database: Database, store: TraceStore, turns: Sequence[Exchange]) -> None:
    async with database.transaction() as connection:
        await store.apply(connection, records(turns))


async def conversations(database: Database, turns: Sequence[Exchange]) -> list[str | None]:
    async with database.acquire() as connection:
        rows = await connection.fetch("SELECT id, conversation_ref, conversation_id FROM request_traces")
    assert all(row["conversation_ref"] == row["conversation_id"] for row in rows)
    found = {str(row["id"]): row["conversation_ref"] for row in rows}
    return [found[x.trace_id] for x in turns]


def chain(name: str | None, clock: int = 1) -> list[Exchange]:
    """Return five turns, of which the third and fourth both continue the second."""
    return [
        turn(1, name=name, clock=clock),
        *(turn(number, f"resp_{of}", clock=clock) for number, of in ((2, 1), (3, 2), (4, 2), (5, 4))),
    ]


@pytest.mark.parametrize(("name", "clock"), [(None, 1), ("conv_9", -1)], ids=["unnamed", "named, clock backwards"])
async def test_chain_when_traces_arrive_in_any_order_then_they_share_a_conversation(
    database: Database, store: TraceStore, name: str | None, clock: int
) -> None:
    dice = random.Random(7)
    for order in permutations(range(5)):
        turns = chain(name, clock)
        left = [turns[index] for index in order]
        while left:  # batches of every size
            size = dice.randint(1, 3)
            await apply(database, store, left[:size])
            left = left[size:]
        assert await conversations(database, turns) == [name, *[name or "resp_1"] * 4], order
        async with database.acquire() as connection:
            await connection.execute("TRUNCATE request_traces, response_chains")


async def test_chain_when_its_batches_are_replayed_then_nothing_changes(database: Database, store: TraceStore) -> None:
    turns = chain("conv_9")
    for _ in range(2):
        for one in turns[::-1]:
            await apply(database, store, [one])
        await apply(database, store, turns)
        assert await conversations(database, turns) == ["conv_9"] * 5


async def test_chain_when_a_turn_names_another_conversation_then_what_follows_belongs_to_that(
    database: Database, store: TraceStore
) -> None:
    turns = [turn(1), turn(2, "resp_1"), turn(3, name="mine"), turn(4, "resp_3"), turn(5, "resp_2")]
    for one in turns[::-1]:
        await apply(database, store, [one])
    assert await conversations(database, turns) == [None, "resp_1", "mine", "mine", "resp_1"]


async def test_chain_when_another_project_continues_its_response_then_it_learns_nothing(
    database: Database, store: TraceStore
) -> None:
    turns = [
        turn(1, name="secret"), turn(6, "resp_2", project="spy"), turn(8, "resp_2"), turn(2, "resp_1"),
        turn(7, "resp_1", project="spy"),
    ]  # fmt: skip
    for one in turns:
        await apply(database, store, [one])
    assert await conversations(database, turns) == ["secret", "resp_2", "secret", "secret", "resp_1"]


async def test_chain_when_ids_repeat_or_go_in_circles_then_stored_all_the_same(
    database: Database, store: TraceStore
) -> None:
    turns = [turn(1, "resp_2"), turn(2, "resp_1"), turn(3, "resp_3"), turn(4, name="resp_4"), turn(4, "resp_1")]
    for one in turns:
        await apply(database, store, [one])
    assert await conversations(database, turns) == ["resp_2", "resp_2", "resp_3", "resp_2", "resp_2"]


@pytest.mark.parametrize("child_first", [True, False], ids=["child first", "parent first"])
async def test_chain_when_two_writers_store_a_turn_and_what_continues_it_at_once_then_one_conversation(
    database: Database, store: TraceStore, child_first: bool
) -> None:
    """Either one has not committed yet when the other begins, also where the parent is not the child's own."""
    await apply(database, store, [turn(3, "resp_2")])
    parent, child = turn(2, name="conv_9"), turn(4, "resp_3")
    first, second = (child, parent) if child_first else (parent, child)
    async with database.transaction() as connection:
        await store.apply(connection, records([first]))
        waiting = asyncio.create_task(apply(database, store, [second]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting
    assert await conversations(database, [parent, child]) == ["conv_9"] * 2


async def test_chain_when_many_writers_store_parts_of_many_chains_then_all_are_whole(
    database: Database, store: TraceStore
) -> None:
    dice = random.Random(11)
    chains = [
        [turn(100 * c + n, f"resp_{100 * c + n - 1}" if n else None, None if n else f"conv_{c}") for n in range(8)]
        for c in range(12)
    ]
    shares: list[list[Exchange]] = [[], [], [], []]
    for one in [one for turns in chains for one in turns]:
        dice.choice(shares).append(one)

    async def write(share: list[Exchange]) -> None:
        dice.shuffle(share)
        while share:
            size = dice.randint(1, 9)
            try:
                await apply(database, store, share[:size])
            except DatabaseContended:  # as the journal's writer does
                continue
            del share[:size]

    await asyncio.gather(*(write(share) for share in shares))
    for c, turns in enumerate(chains):
        assert await conversations(database, turns) == [f"conv_{c}"] * 8


async def test_maintain_when_responses_are_older_than_their_traces_may_be_then_they_are_forgotten(
    database: Database, store: TraceStore
) -> None:
    await apply(database, store, chain("conv_9"))
    async with database.acquire() as connection:
        await connection.execute(
            "UPDATE response_chains SET stored_at = now() - interval '91 days' WHERE response_id < 'resp_4'"
        )
        await connection.execute(
            "INSERT INTO response_chains SELECT 'shop', 'old_' || n, 'c', now() - interval '91 days'"
            " FROM generate_series(1, 10001) n"
        )
    await store.maintain()
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT array_agg(response_id ORDER BY 1) FROM response_chains") == [
            "resp_4",
            "resp_5",
        ]
    later = [turn(6, "resp_5"), turn(7, "resp_3")]
    await apply(database, store, later)
    assert await conversations(database, later) == ["conv_9", "resp_3"]


async def test_migration_when_there_are_traces_then_down_and_up_again_keeps_their_conversations(
    database: Database, store: TraceStore
) -> None:
    turns = chain("conv_9")
    await apply(database, store, turns[:3])
    async with database.acquire() as connection:
        await migrate.down(connection, 13)
        assert await connection.fetchval("SELECT to_regclass('response_chains')") is None
        await migrate.up(connection)
    await apply(database, store, turns[3:])
    assert await conversations(database, turns) == ["conv_9"] * 3 + ["resp_2", "resp_2"]


async def test_chain_when_conversations_are_the_applications_own_then_late_corrections_fit_them_too(
    empty_database_url: str,
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    known = uuid4()
    await connection.execute("CREATE TABLE conversations (id UUID PRIMARY KEY)")
    await connection.execute("INSERT INTO conversations VALUES ($1)", known)
    await migrate.up(connection)
    database = Database(SETTINGS)
    await database.connect(empty_database_url)
    store = TraceStore(database, SETTINGS)
    for one in (turn(2, "resp_1"), turn(1, name=str(known))):
        await apply(database, store, [one])
    rows = await connection.fetch("SELECT conversation_id, conversation_ref FROM request_traces")
    assert [tuple(row) for row in rows] == [(known, str(known))] * 2
    await database.close()
    await connection.close()
