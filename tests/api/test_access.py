import time
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from proxy.api.access import Access
from proxy.auth.keyring import Keyring
from proxy.auth.keys import digest
from proxy.auth.roles import Permission
from proxy.config.auth import Auth
from proxy.errors import PermissionDenied, TooManyAttempts, Unauthenticated
from tests.auth.key_table import KEY, KeyTable, stored

ADMIN = "admin-0123456789"


@pytest.fixture
async def access() -> AsyncIterator[Access]:
    yield Access(digest(ADMIN), Keyring(Auth(guesses_per_minute=40), KeyTable(stored()), clock=time.monotonic))


@pytest.mark.parametrize("header", [f"Bearer {ADMIN}", f"bearer {ADMIN}", f"BEARER  {ADMIN} "])
async def test_admin_key_in_any_spelling_of_the_scheme_is_the_operators(access: Access, header: str) -> None:
    caller = await access.identify([header], "peer")
    assert caller.is_operator and caller.permissions == frozenset(get_args(Permission))
    assert (caller.actor.name, caller.actor.key_id, caller.actor.peer) == ("operator", None, "peer")


async def test_key_of_a_user_sees_its_project_with_the_users_role(access: Access) -> None:
    caller = await access.identify([f"Bearer {KEY}"], None)
    assert (caller.user_id, caller.project_id, caller.role) == ("alice", "shop", "developer")
    caller.require("traces:read")
    with pytest.raises(PermissionDenied):
        caller.require("quota:write")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [ADMIN],
        [f"Basic {ADMIN}"],
        [f"Bearer {ADMIN}", f"Bearer {ADMIN}"],
        ["Bearer wrong"],
        [f"Bearer {ADMIN}x"],
        [f"Bearer {KEY}x"],
        ["Bearer \udcff"],
    ],
)
async def test_anything_else_is_refused(access: Access, headers: list[str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await access.identify(headers, None)
    assert ADMIN not in caught.value.message and KEY not in caught.value.message


async def test_key_without_the_surface_is_refused() -> None:
    table = KeyTable(stored(scopes={"surfaces": ["data"]}))
    with pytest.raises(PermissionDenied):
        await Access(digest(ADMIN), Keyring(Auth(), table, clock=time.monotonic)).identify([f"Bearer {KEY}"], None)


async def test_user_without_a_role_may_nothing() -> None:
    access = Access(digest(ADMIN), Keyring(Auth(), KeyTable(stored(role=None)), clock=time.monotonic))
    caller = await access.identify([f"Bearer {KEY}"], None)
    assert caller.permissions == frozenset()


async def test_guessing_admin_keys_ends_with_429_but_the_right_one_passes(access: Access) -> None:
    for number in range(40):
        with pytest.raises(Unauthenticated):
            await access.identify([f"Bearer guess-{number}"], "thief")
    with pytest.raises(TooManyAttempts):
        await access.identify(["Bearer guess"], "thief")
    assert (await access.identify([f"Bearer {ADMIN}"], "thief")).is_operator
