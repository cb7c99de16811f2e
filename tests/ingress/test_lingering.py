import asyncio

import pytest

from proxy.ingress import lingering
from proxy.ingress.client_request import BrokenBody
from proxy.ingress.lean_body import LeanBody
from proxy.ingress.lingering import Lingering


@pytest.fixture(autouse=True)
def _kind_of_server():
    """One server is enough here."""


class Line:
    """Never makes the client wait."""

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


async def test_rest_of_a_body_when_it_comes_then_it_is_dropped_until_its_end():
    body = LeanBody(Line(), 9, b"abc")
    lingering_task = asyncio.create_task(Lingering().linger(body))
    for piece in (b"def", b"ghi"):
        await asyncio.sleep(0.01)
        assert not lingering_task.done()
        body.feed(piece)
    await asyncio.wait_for(lingering_task, 1)
    assert body.at_eof()


async def test_rest_of_a_body_when_a_cancelled_reader_still_waits_then_it_lets_go_first():
    body = LeanBody(Line(), 6, b"")
    reader = asyncio.create_task(body.readany())
    await asyncio.sleep(0.01)
    reader.cancel()  # noticed in the next turn of the loop
    lingering_task = asyncio.create_task(Lingering().linger(body))
    await asyncio.sleep(0.01)
    body.feed(b"abcdef")
    await asyncio.wait_for(lingering_task, 1)
    assert body.is_eof()


@pytest.mark.parametrize("limit", ["_PAUSE_S", "_MOST_S"])
async def test_rest_of_a_body_when_it_takes_too_long_then_nobody_waits_for_it(monkeypatch, limit):
    monkeypatch.setattr(lingering, limit, 0.02)
    body = LeanBody(Line(), 6, b"abc")
    await asyncio.wait_for(Lingering().linger(body), 1)
    assert not body.is_eof()


async def test_rest_of_a_body_when_it_is_malformed_then_that_is_its_end():
    class Broken(LeanBody):
        async def readany(self):
            raise BrokenBody

    await Lingering().linger(Broken(Line(), 6, b""))


async def test_room_when_it_is_needed_then_the_oldest_gives_way():
    server = Lingering()
    assert not server.give_way()
    tasks = [asyncio.create_task(server.linger(LeanBody(Line(), 6, b"abc"))) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert server.give_way()
    await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [True, False, False]
    assert server.give_way() and server.give_way() and not server.give_way()
    await asyncio.wait_for(asyncio.gather(*tasks), 1)


async def test_room_when_the_oldest_is_over_in_this_turn_then_it_gives_way_all_the_same(monkeypatch):
    monkeypatch.setattr(lingering, "_MOST_S", 0.01)
    server = Lingering()
    task = asyncio.create_task(server.linger(LeanBody(Line(), 6, b"abc")))
    await asyncio.sleep(0)
    (limit,) = server._limits
    over, given = type(limit)._on_timeout, []

    def noticed(of):
        over(of)
        given.append(server.give_way())  # a new connection, right behind the timer

    monkeypatch.setattr(type(limit), "_on_timeout", noticed)
    limit.reschedule(asyncio.get_running_loop().time() + 0.01)
    await asyncio.wait_for(task, 1)
    assert given == [True]
