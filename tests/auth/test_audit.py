import pytest

from proxy.auth.audit import Actor, AuditLog
from proxy.config import schema
from proxy.db.pool import Database
from proxy.errors import DatabaseUnavailable, InvalidRequest

ALICE = Actor("alice", "abcdef012345", "127.0.0.1")


async def test_change_is_written_down_before_it_is_made_and_completed_after(database: Database) -> None:
    audit = AuditLog(database)
    async with audit.change(ALICE, "keys.create", "shop", None, {"name": "n"}) as change:
        [begun] = await audit.list("shop", 10, None)
        assert (begun.outcome, begun.target) == ("begun", None)
        change.target = "new"
    [done] = await audit.list(None, 10, None)
    assert (done.outcome, done.target, done.actor, done.key_id, done.action) == (
        "done",
        "new",
        "alice",
        "abcdef012345",
        "keys.create",
    )
    assert done.details == {"name": "n"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidRequest("no", status=404), "refused"),
        (DatabaseUnavailable("away"), "failed"),
        (ZeroDivisionError(), "failed"),
    ],
)
async def test_change_that_is_not_made_says_so(error: Exception, outcome: str, database: Database) -> None:
    audit = AuditLog(database)
    with pytest.raises(type(error)):
        async with audit.change(ALICE, "quota.reset"):
            raise error
    assert [entry.outcome for entry in await audit.list(None, 10, None)] == [outcome]


async def test_change_that_cannot_be_written_down_is_not_made() -> None:
    made = False
    with pytest.raises(DatabaseUnavailable):
        async with AuditLog(Database(schema.Database())).change(ALICE, "quota.reset"):
            made = True
    assert not made


async def test_change_whose_end_cannot_be_written_stays_begun(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    audit = AuditLog(database)
    dsn = database
    async with audit.change(ALICE, "quota.reset"):
        pool, dsn._pool = dsn._pool, None
    dsn._pool = pool
    assert [entry.outcome for entry in await audit.list(None, 10, None)] == ["begun"]
    assert "could not be recorded" in caplog.text


async def test_pages_go_from_new_to_old_within_a_project(database: Database) -> None:
    audit = AuditLog(database)
    for number in range(5):
        async with audit.change(ALICE, str(number), "shop" if number % 2 else "lab"):
            pass
    first = await audit.list(None, 2, None)
    assert [entry.action for entry in first] == ["4", "3"]
    assert [entry.action for entry in await audit.list("lab", 9, first[-1].id)] == ["2", "0"]
