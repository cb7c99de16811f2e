from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from proxy.auth.keys import KeyStore, NewKey, digest, parts, whole
from proxy.config import schema
from proxy.db.pool import Database


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[KeyStore]:
    database = Database(schema.Database())
    await database.connect(database_url)
    yield KeyStore(database)
    await database.close()


def new(**facts) -> NewKey:
    return NewKey(
        **{"name": "n", "user_id": "alice", "project_id": "default-project", "scopes": {}, "expires_at": None, **facts}
    )


async def test_new_key_is_kept_as_a_digest_and_makes_its_user_a_developer(store: KeyStore) -> None:
    made = await store.create(new(scopes={"models": ["a"]}), "operator")
    assert made is not None
    key_id, key = made
    assert parts(key) is not None
    stored = (await store.find([key_id, "nothing"]))[key_id]
    assert stored.secret_hash == digest(parts(key)[1]) and parts(key)[1].encode() not in stored.secret_hash
    assert (stored.role, stored.is_valid, stored.created_by, stored.scopes) == (
        "developer",
        True,
        "operator",
        {"models": ["a"]},
    )
    assert await store.role("alice", "default-project") == "developer"
    assert await store.role("bob", "default-project") is None


async def test_key_for_a_project_that_is_not_there_is_not_made(store: KeyStore) -> None:
    assert await store.create(new(project_id="nowhere"), "operator") is None


async def test_keys_end_when_they_expire_and_when_they_are_revoked(store: KeyStore) -> None:
    past = await store.create(new(expires_at=datetime.now(UTC) - timedelta(seconds=1)), "operator")
    assert past is not None and not (await store.find([past[0]]))[past[0]].is_valid
    made = await store.create(new(), "operator")
    assert made is not None
    for _ in range(2):
        await store.revoke(made[0])
    stored = (await store.find([made[0]]))[made[0]]
    assert not stored.is_valid and stored.revoked_at is not None


async def test_rotation_keeps_the_old_key_for_the_overlap_and_happens_once(store: KeyStore) -> None:
    made = await store.create(new(scopes={"surfaces": ["data"]}), "operator")
    assert made is not None
    successor = await store.rotate(made[0], timedelta(hours=1), None, "alice")
    assert successor is not None
    found = await store.find([made[0], successor[0]])
    old, fresh = found[made[0]], found[successor[0]]
    assert old.is_valid and old.replaced_by == fresh.id and old.expires_at is not None
    assert (fresh.user_id, fresh.scopes, fresh.created_by, fresh.expires_at) == (
        "alice",
        {"surfaces": ["data"]},
        "alice",
        None,
    )
    assert await store.rotate(made[0], timedelta(0), None, "alice") is None
    at_once = await store.rotate(fresh.id, timedelta(0), None, "alice")
    assert at_once is not None and not (await store.find([fresh.id]))[fresh.id].is_valid


async def test_list_goes_from_new_to_old_by_pages(store: KeyStore) -> None:
    made = [await store.create(new(name=str(number)), "operator") for number in range(5)]
    ids = [key[0] for key in made if key][::-1]
    first = await store.list("default-project", "alice", 3, None)
    rest = await store.list(None, None, 3, first[-1].id)
    assert [key.id for key in (*first, *rest)] == ids
    assert await store.list("other", None, 3, None) == [] == await store.list(None, "bob", 3, None)


async def test_last_use_never_goes_back(store: KeyStore) -> None:
    made = await store.create(new(), "operator")
    assert made is not None
    later = datetime(2026, 11, 25, tzinfo=UTC)
    for moment in (later, later - timedelta(days=1)):
        await store.touch({made[0]: moment, "gone": moment})
    assert (await store.find([made[0]]))[made[0]].last_used_at == later


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sg-",
        "sg-abc-x",
        "sk-abcdef012345-x",
        "sg-abcdef012345-",
        "sg-ABCDEF012345-x",
        "sg-abcdef01234ä-x",
        "sg-abcdef012345-" + "x" * 257,
    ],
)
def test_what_does_not_look_like_a_key_has_no_parts(key: str) -> None:
    assert parts(key) is None


def test_secret_may_hold_hyphens() -> None:
    assert parts(whole("abcdef012345", "a-b-_c")) == ("abcdef012345", "a-b-_c")
