"""The directory's SQL, on PostgreSQL: what decides something is found, and what changed."""

from datetime import timedelta

from proxy.projects.store import ProjectRow, ProjectStore


async def test_all_and_changed_since_when_projects_change_then_they_are_found(database):
    store = ProjectStore(database, 10)
    first = await store.all()
    assert first.rows == []
    async with database.acquire() as connection:
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name, config) VALUES"
            " ('a', 'default-org', 'a', '{\"timeZone\": \"UTC\"}'), ('b', 'default-org', 'b', '{}')"
        )
    expected = ProjectRow("a", {"timeZone": "UTC"})
    assert (await store.all()).rows == [expected]
    changed = await store.changed_since(first.asked_at, timedelta())
    assert expected in changed.rows and ProjectRow("b", {}) in changed.rows
    assert (await store.changed_since(changed.asked_at, timedelta())).rows == []
    assert len((await store.changed_since(changed.asked_at, timedelta(minutes=1))).rows) >= 2
    async with database.acquire() as connection:
        await connection.execute("UPDATE projects SET config = '{}' WHERE id = 'a'")
    assert (await store.changed_since(changed.asked_at, timedelta())).rows == [ProjectRow("a", {})]
    async with database.acquire() as connection:
        await connection.execute("UPDATE projects SET archived_at = now() WHERE id IN ('a', 'b')")
    assert {row.id: row.config for row in (await store.all()).rows} == {"a": None, "b": None}
