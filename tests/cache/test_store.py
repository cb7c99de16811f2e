"""The shared answers' SQL, on PostgreSQL."""

import pytest

from proxy.cache.store import AnswerStore, Row
from proxy.db.pool import Database
from proxy.errors import RecordRejected

A, B = b"a" * 32, b"b" * 32
WHOLE = Row("whole", "application/json", b'{"choices":[]}', True)
EVENTS = Row("events", "text/event-stream", b"data: [DONE]\n\n", False)


async def said(store: AnswerStore, digest: bytes, project: str = "default-project") -> list[tuple[str, bytes]]:
    rows = await store.get(digest, ("whole", "events"), project)
    assert all(0 <= row.age_s < 60 for row in rows)
    return sorted((row.form, row.body) for row in rows)


async def test_answer_when_put_then_each_form_is_there_for_its_project_alone(database: Database) -> None:
    store = AnswerStore(database, 10_000, 60.0)
    await store.put(A, "default-project", WHOLE)
    await store.put(A, "default-project", EVENTS)
    assert await said(store, A) == [("events", EVENTS.body), ("whole", WHOLE.body)]
    assert await said(store, A, "another") == await said(store, B) == []
    (row,) = await store.get(A, ("events",), "default-project")
    assert (row.content_type, row.has_usage) == (EVENTS.content_type, False)
    await store.put(A, "default-project", Row("whole", "application/json", b"new", True))
    assert ("whole", b"new") in await said(store, A)
    with pytest.raises(RecordRejected):
        await store.put(B, "nobody's", WHOLE)
    assert store.is_up


async def test_answer_when_its_time_is_over_then_it_is_not_given_and_soon_forgotten(database: Database) -> None:
    store = AnswerStore(database, 10_000, 0.0)
    await store.put(A, "default-project", WHOLE)
    assert await said(store, A) == []
    await store.trim()
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM cached_answers") == 0


async def test_table_when_there_is_too_much_then_the_oldest_go(database: Database) -> None:
    store = AnswerStore(database, 250, 60.0)
    for digest in (A, B):
        await store.put(digest, "default-project", Row("whole", "", b"x" * 100, True))
        await store.put(digest, "default-project", Row("events", "", b"x" * 100, True))
    await store.trim()
    assert await said(store, A) == []
    assert len(await said(store, B)) == 2
