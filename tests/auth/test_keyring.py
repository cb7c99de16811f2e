import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from proxy.auth.keyring import Keyring
from proxy.auth.keys import whole
from proxy.config.auth import Auth
from proxy.errors import DatabaseUnavailable, TooManyAttempts, Unauthenticated
from tests.auth.key_table import ID, KEY, KeyTable, stored

NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.s - 1000)


def ring(table: KeyTable, clock: Clock | None = None, **settings: object) -> Keyring:
    clock = clock or Clock()
    return Keyring(Auth(**settings), table, clock=clock, now=clock.now)


async def test_valid_key_is_looked_up_once() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    assert keys.known(KEY) is None
    assert (await keys.find(KEY, None)).user_id == "alice"
    assert keys.known(KEY) is not None and await keys.find(KEY, None) is keys.known(KEY)
    assert table.asked == 1 and len(keys) == 1


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sg-",
        KEY + "x",
        KEY[:-1],
        whole("zzzzzz999999", "s" * 43),
        KEY.upper(),
        "sk-" + KEY[3:],
        "sg-a-b",
        KEY + "\udcff",
    ],
)
async def test_wrong_key_is_refused_the_same_way(key: str) -> None:
    keys = ring(KeyTable(stored()))
    await keys.find(KEY, None)
    assert keys.known(key) is None
    with pytest.raises(Unauthenticated) as caught:
        await keys.find(key, None)
    assert caught.value.message == "The API key is wrong, has expired or was revoked."
    assert keys.refused == 1


@pytest.mark.parametrize("facts", [{"is_valid": False}, {"revoked_at": NOW, "is_valid": False}])
async def test_ended_key_is_refused_and_not_kept(facts: dict[str, object]) -> None:
    keys = ring(KeyTable(stored(**facts)))
    with pytest.raises(Unauthenticated):
        await keys.find(KEY, None)
    assert len(keys) == 0


async def test_revocation_and_roles_count_with_the_next_refresh() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    await keys.refresh()
    assert table.asked == 0
    await keys.find(KEY, None)
    table.keys[ID] = stored(role="admin")
    await keys.refresh()
    assert keys.known(KEY).role == "admin"
    table.keys[ID] = stored(is_valid=False)
    await keys.refresh()
    assert keys.known(KEY) is None
    table.keys[ID] = stored()
    await keys.find(KEY, None)
    del table.keys[ID]
    await keys.refresh()
    assert keys.known(KEY) is None


async def test_key_ends_at_its_time_without_a_refresh() -> None:
    clock = Clock()
    keys = ring(KeyTable(stored(expires_at=NOW + timedelta(seconds=10))), clock)
    await keys.find(KEY, None)
    clock.s += 10
    assert keys.known(KEY) is None


async def test_outage_keeps_known_keys_for_a_while_and_is_503_for_others() -> None:
    clock, table = Clock(), KeyTable(stored())
    keys = ring(table, clock, outage_s=100)
    await keys.find(KEY, None)
    table.away = True
    with pytest.raises(DatabaseUnavailable):
        await keys.refresh()
    clock.s += 100
    assert keys.known(KEY) is not None
    clock.s += 1
    with pytest.raises(DatabaseUnavailable):
        await keys.find(KEY, None)
    with pytest.raises(DatabaseUnavailable):
        await keys.find(whole("zzzzzz999999", "x"), "peer")
    assert keys.refused == 0


async def test_guessing_is_limited_by_address_and_never_stops_known_keys() -> None:
    clock, table = Clock(), KeyTable(stored(), stored(id="other0000000"))
    keys = ring(table, clock, guesses_per_minute=3)
    await keys.find(KEY, "thief")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await keys.find(KEY + "x", "thief")
    asked = table.asked
    with pytest.raises(TooManyAttempts) as caught:
        await keys.find(KEY + "x", "thief")
    assert (caught.value.http_status, caught.value.retry_after_s, table.asked) == (429, 60, asked)
    assert await keys.find(KEY, "thief") is not None
    with pytest.raises(Unauthenticated):
        await keys.find(KEY + "x", "somebody else")
    clock.s += 60
    with pytest.raises(Unauthenticated):
        await keys.find(KEY + "x", "thief")
    assert (keys.refused, keys.blocked) == (5, 1)


async def test_addresses_and_keys_are_bounded() -> None:
    table = KeyTable(*(stored(id=f"{number:012d}") for number in range(5)))
    keys = ring(table, max_keys=3)
    for number in range(5):
        await keys.find(whole(f"{number:012d}", "s" * 43), None)
    assert len(keys) == 3 and keys.known(whole("000000000004", "s" * 43)) is not None
    for number in range(5000):
        with pytest.raises(Unauthenticated):
            await keys.find("x", f"peer {number}")
    assert len(keys._guesses) == 4096


async def test_last_use_is_written_lazily_and_not_lost_in_an_outage() -> None:
    clock, table = Clock(), KeyTable(stored())
    keys = ring(table, clock)
    await keys.write_down()
    await keys.find(KEY, None)
    table.away = True
    with pytest.raises(DatabaseUnavailable):
        await keys.write_down()
    table.away = False
    await keys.write_down()
    assert table.touched == {ID: NOW}


async def test_loop_follows_until_cancelled_also_through_an_outage() -> None:
    table = KeyTable(stored())
    clock = Clock()
    keys = ring(table, clock, refresh_s=0.005, last_used_s=1)
    await keys.find(KEY, None)
    table.away = True
    loop = asyncio.create_task(keys.run())
    await asyncio.sleep(0.02)
    clock.s += 2
    table.away = False
    while not table.touched:
        await asyncio.sleep(0.005)
    keys.forget(ID)
    assert keys.known(KEY) is None
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_age_is_that_of_the_latest_news_of_the_keys_in_memory() -> None:
    table, clock = KeyTable(stored()), Clock()
    keys = ring(table, clock)
    clock.s += 500
    await keys.refresh()
    assert keys.age_s == 0, "there is nothing that could be old"
    await keys.find(KEY, None)
    table.away = True
    clock.s += 70
    with pytest.raises(DatabaseUnavailable):
        await keys.refresh()
    assert keys.age_s == 70
    table.away = False
    await keys.refresh()
    assert keys.age_s == 0


async def test_role_that_changed_counts_at_once_also_while_others_guess_from_the_same_address() -> None:
    table = KeyTable(stored())
    keys = ring(table, guesses_per_minute=1)
    await keys.find(KEY, "office")
    with pytest.raises(Unauthenticated):
        await keys.find("sg-wrong", "office")
    table.keys[ID] = stored(role="viewer")
    await keys.recheck("shop", "somebody else")
    assert (await keys.find(KEY, "office")).role == "developer"
    await keys.recheck("shop", "alice")
    assert (await keys.find(KEY, "office")).role == "viewer"
    table.keys[ID] = stored(is_valid=False)
    await keys.recheck("shop")
    assert keys.known(KEY) is None


async def asked(table: KeyTable, times: int) -> None:
    while table.asked < times:
        await asyncio.sleep(0)


async def test_look_up_that_began_before_a_revocation_here_is_not_kept() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    table.gate.clear()
    looking = asyncio.create_task(keys.find(KEY, None))
    await asked(table, 1)
    table.keys[ID] = stored(is_valid=False)
    keys.forget(ID)
    table.gate.set()
    await looking
    assert keys.known(KEY) is None
    with pytest.raises(Unauthenticated):
        await keys.find(KEY, None)


async def test_look_up_that_began_before_a_change_of_role_here_is_not_kept() -> None:
    table = KeyTable(stored(role="owner"))
    keys = ring(table)
    table.gate.clear()
    looking = asyncio.create_task(keys.find(KEY, None))
    await asked(table, 1)
    table.keys[ID] = stored(role="viewer")
    await keys.recheck("shop", "alice")
    table.gate.set()
    await looking
    assert keys.known(KEY) is None and (await keys.find(KEY, None)).role == "viewer"


async def test_requests_that_come_at_once_with_one_unknown_key_ask_once() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    table.gate.clear()
    first, *others = [asyncio.create_task(keys.find(KEY, None)) for _ in range(20)]
    await asked(table, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    table.gate.set()
    assert {found.user_id for found in await asyncio.gather(*others)} == {"alice"}
    assert (table.asked, len(keys), keys._look_ups) == (1, 1, {})


async def test_outage_is_told_to_all_who_wait_for_one_look_up_and_not_kept() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    table.away = True
    found = await asyncio.gather(*(keys.find(KEY, None) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [DatabaseUnavailable] * 3
    table.away = False
    assert (await keys.find(KEY, None)).user_id == "alice"


async def test_wrong_secrets_that_come_at_once_with_one_key_id_are_counted_before_the_next_is_compared() -> None:
    table = KeyTable(stored())
    keys = ring(table, guesses_per_minute=3)
    guesses = [KEY + str(number) for number in range(9)]
    found = await asyncio.gather(*(keys.find(key, "thief") for key in [*guesses, KEY]), return_exceptions=True)
    assert [type(error) for error in found] == [Unauthenticated] * 3 + [TooManyAttempts] * 7
    assert (keys.refused, keys.blocked, len(keys), table.asked) == (3, 7, 0, 1)


async def test_look_up_that_began_before_a_change_here_is_not_waited_for_by_those_who_come_after_it() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    old = table.gate = asyncio.Event()
    before = asyncio.create_task(keys.find(KEY, None))
    await asked(table, 1)
    table.keys[ID] = stored(is_valid=False)
    keys.forget(ID)
    new = table.gate = asyncio.Event()
    after = [asyncio.create_task(keys.find(KEY, None))]
    await asked(table, 2)
    old.set()
    await before
    after.append(asyncio.create_task(keys.find(KEY, None)))
    new.set()
    found = await asyncio.gather(*after, return_exceptions=True)
    assert [type(error) for error in found] == [Unauthenticated] * 2
    assert (table.asked, len(keys), keys._look_ups) == (2, 0, {})


async def test_look_up_that_ends_after_a_newer_refresh_does_not_undo_it() -> None:
    table, clock = KeyTable(stored(role="owner")), Clock()
    keys = ring(table, clock, outage_s=100)
    await keys.find(KEY, None)
    clock.s += 101
    slow = table.gate = asyncio.Event()
    looking = asyncio.create_task(keys.find(KEY, None))
    await asked(table, 2)
    table.keys[ID] = stored(role="viewer")
    table.gate = asyncio.Event()
    table.gate.set()
    await keys.refresh()
    slow.set()
    await looking
    assert keys.known(KEY).role == "viewer"


async def test_refresh_that_began_before_a_change_here_does_not_undo_it() -> None:
    table = KeyTable(stored(role="owner"))
    keys = ring(table)
    await keys.find(KEY, None)
    table.gate.clear()
    refreshing = asyncio.create_task(keys.refresh())
    await asked(table, 2)
    table.keys[ID] = stored(role="viewer")
    gate, table.gate = table.gate, asyncio.Event()
    table.gate.set()
    await keys.recheck("shop", "alice")
    assert keys.known(KEY).role == "viewer"
    gate.set()
    await refreshing
    assert keys.known(KEY).role == "viewer"


async def test_key_is_dropped_if_it_cannot_be_read_anew_after_a_change() -> None:
    table = KeyTable(stored())
    keys = ring(table)
    await keys.find(KEY, None)
    table.away = True
    await keys.recheck("shop", "alice")
    assert keys.known(KEY) is None
