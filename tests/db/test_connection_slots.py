"""ConnectionSlots for connections: closed after refusals, never the last one, and open again by themselves."""

import asyncio

import pytest

from proxy.db.connection_slots import ConnectionSlots


async def soon(places: ConnectionSlots, seconds: float = 0.02) -> None:
    await places.take(asyncio.get_running_loop().time() + seconds)


async def test_places_when_all_are_taken_then_the_next_waits_until_one_is_given_back() -> None:
    places = ConnectionSlots(2, 60.0)
    await soon(places)
    await soon(places)
    with pytest.raises(TimeoutError):
        await soon(places)
    waiting = asyncio.create_task(soon(places, 5.0))
    await asyncio.sleep(0)
    places.give_back()
    await waiting


async def test_place_when_its_connection_was_refused_then_it_is_closed_for_a_while() -> None:
    places = ConnectionSlots(2, 0.05)
    await soon(places)
    await soon(places)
    assert places.close(has_connections=True)
    with pytest.raises(TimeoutError):
        await soon(places)
    await soon(places, 1.0)


async def test_place_when_it_is_the_last_open_one_then_it_stays() -> None:
    places = ConnectionSlots(2, 60.0)
    await soon(places)
    await soon(places)
    assert places.close(has_connections=True)
    assert not places.close(has_connections=True)
    places.give_back()
    await soon(places)


async def test_place_when_nobody_else_has_or_gets_a_connection_then_it_stays() -> None:
    places = ConnectionSlots(3, 60.0)
    await soon(places)
    assert not places.close(has_connections=False)
    await soon(places)
    assert places.close(has_connections=False), "the other one may get its connection"
