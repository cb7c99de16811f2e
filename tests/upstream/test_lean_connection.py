"""What only our own client can get wrong: the moment between giving a request to a connection and writing it."""

import asyncio

import pytest

from proxy.errors import UpstreamFailed
from proxy.event_loop.write_batching import LoopTurn, Outlet
from proxy.upstream.failures import CLOSED
from proxy.upstream.lean_connection import Bounds, Connection
from tests.fakes.garbage import garbage

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Socket(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_aborted = False

    def write(self, data) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


def connected(turn: LoopTurn, freed: list[Connection]) -> tuple[Connection, Socket]:
    bounds = Bounds(line_bytes=100, lines=9, read_ahead=100, first_byte_s=5, gap_s=5)
    connection = Connection(asyncio.get_running_loop(), bounds, freed.append, lambda _: None, turn)
    socket = Socket()
    connection.connection_made(socket)
    return connection, socket


async def test_answer_when_it_comes_before_the_request_was_written_then_it_belongs_to_nobody():
    turn, freed = LoopTurn(), []
    connection, socket = connected(turn, freed)
    turn.keeps(Outlet(turn))  # another one writes, so that the request waits for the end of the turn
    reply = connection.begin(bodiless=False, total_at=asyncio.get_running_loop().time() + 5)
    connection.transmit(b"GET / HTTP/1.1\r\n\r\n", None, None)
    connection.data_received(OK)
    with pytest.raises(UpstreamFailed) as caught:
        await reply.head()
    await asyncio.sleep(0)
    assert caught.value.code == CLOSED
    assert (socket.written, socket.is_aborted, freed) == ([], True, [])


async def test_request_when_its_caller_leaves_before_it_was_written_then_nothing_is_sent():
    turn = LoopTurn()
    connection, socket = connected(turn, [])
    turn.keeps(Outlet(turn))
    reply = connection.begin(bodiless=False, total_at=asyncio.get_running_loop().time() + 5)
    connection.transmit(b"GET / HTTP/1.1\r\n\r\n", None, None)
    reply.close()
    await asyncio.sleep(0)
    assert (socket.written, socket.is_aborted) == ([], True)


async def test_request_when_alone_in_its_turn_then_it_is_written_at_once_and_answered():
    freed: list[Connection] = []
    connection, socket = connected(LoopTurn(), freed)
    reply = connection.begin(bodiless=False, total_at=asyncio.get_running_loop().time() + 5)
    connection.transmit(b"GET / HTTP/1.1\r\n\r\n", None, None)
    assert socket.written == [b"GET / HTTP/1.1\r\n\r\n"]
    connection.data_received(OK)
    await reply.head()
    assert (await reply.read(), freed) == (b"ok", [connection])
    connection.abort()
    connection.connection_lost(None)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_connection_when_lost_then_nothing_of_it_waits_for_the_garbage_collector(is_answered):
    with garbage() as left:
        freed: list[Connection] = []
        connection, socket = connected(LoopTurn(), freed)
        reply = connection.begin(bodiless=False, total_at=asyncio.get_running_loop().time() + 5)
        connection.transmit(b"GET / HTTP/1.1\r\n\r\n", None, None)
        if is_answered:
            connection.data_received(OK)
            await reply.head()
            freed.clear()
        reply.close()
        connection.connection_lost(None)
        connection.connection_lost(None)
        del connection, socket, reply
    assert not {"Connection", "AnswerParser", "HttpResponseParser", "Deadline", "Reply"} & left
