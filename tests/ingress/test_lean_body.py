import asyncio

import pytest

from proxy.ingress.lean_body import LeanBody


@pytest.fixture(autouse=True)
def _kind_of_server():
    """One server is enough here."""


class Line:
    """Notes when the client has to wait."""

    def __init__(self):
        self.held = False

    def pause_reading(self):
        self.held = True

    def resume_reading(self):
        self.held = False


async def test_body_when_fed_in_any_pieces_then_it_is_as_long_as_announced_and_the_rest_is_given_back():
    wire = b"0123456789next"
    for first in range(11):
        for size in (1, 3, 20):
            body, rest = LeanBody(Line(), 10, wire[:first]), b""
            for start in range(first, len(wire), size):
                rest += body.feed(wire[start : start + size])
            assert body.is_eof()
            assert (await body.readany(), rest, body.total_bytes) == (b"0123456789", b"next", 10)
            assert body.at_eof()
            assert await body.readany() == b""


async def test_body_when_nothing_is_there_then_the_reader_waits_for_the_next_piece():
    body = LeanBody(Line(), 4, b"")
    reading = asyncio.create_task(body.readany())
    await asyncio.sleep(0)
    assert not reading.done()
    assert not body.is_eof()
    body.feed(b"ab")
    assert await reading == b"ab"
    assert not body.at_eof()
    body.feed(b"cd")
    assert body.read_nowait() == b"cd"


@pytest.mark.parametrize("length", [70_000, 70_001])
async def test_body_when_much_of_it_is_unread_then_the_client_waits_unless_that_was_all(length):
    line = Line()
    body = LeanBody(line, length, b"")
    body.feed(b"x" * 70_000)
    assert line.held is (length > 70_000)
    body.read_nowait()
    assert not line.held
