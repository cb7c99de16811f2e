"""A reply between the connection that fills it and the reader that waits, with and without a sink."""

import asyncio
import weakref
from collections.abc import Callable

import pytest

from proxy.errors import UpstreamFailed, UpstreamTimeout
from proxy.event_loop.write_batching import LoopTurn
from proxy.upstream.covering import CoveredReply
from proxy.upstream.lean_connection import Bounds, Connection
from proxy.upstream.lean_reply import Reply
from tests.fakes.garbage import garbage

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
GAP_S = 0.12


class Transport(asyncio.Transport):
    """Notes only whether it was aborted or paused."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = self.is_paused = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0


def begun(read_ahead: int = 1 << 20, total_s: float = 60.0) -> tuple[Connection, Reply, Transport]:
    """Return a connection that has received the head of a chunked answer."""
    loop, transport = asyncio.get_running_loop(), Transport()
    bounds = Bounds(line_bytes=8190, lines=64, read_ahead=read_ahead, first_byte_s=60.0, gap_s=GAP_S)
    connection = Connection(loop, bounds, lambda _free: None, lambda _lost: None, LoopTurn())
    connection.connection_made(transport)
    reply = connection.begin(bodiless=False, total_at=loop.time() + total_s)
    connection.transmit(b"GET / HTTP/1.1\r\n\r\n", None, None)
    connection.data_received(HEAD)
    return connection, reply, transport


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def waiting(reply: Reply, sink: Callable[[bytes], bool] | None) -> "asyncio.Task[bytes]":
    """Return a reader that waits."""
    reader = asyncio.create_task(reply.read(sink))
    await asyncio.sleep(0)
    return reader


class Sink:
    """Takes everything but `refused`; fails at `fault`."""

    def __init__(self, refused: bytes = b"", fault: bytes = b"") -> None:
        self.offered: list[bytes] = []
        self._refused = refused
        self._fault = fault

    def __call__(self, piece: bytes) -> bool:
        self.offered.append(piece)
        if piece == self._fault:
            raise ZeroDivisionError
        return piece != self._refused


async def test_sink_when_it_takes_what_arrives_then_the_reader_sleeps_until_the_end() -> None:
    connection, reply, _ = begun()
    reader = await waiting(reply, sink := Sink())
    for piece in (b"a", b"b", b"c"):
        connection.data_received(chunk(piece))
        await asyncio.sleep(0)
        assert not reader.done()
    connection.data_received(END)
    assert (await reader, sink.offered, reply.complete) == (b"", [b"a", b"b", b"c"], True)


async def test_sink_when_its_reader_is_done_then_the_reply_has_let_go_of_it() -> None:
    connection, reply, _ = begun()
    covered = CoveredReply(reply, (b"a secret",))
    for outer in (reply, covered):
        reader = asyncio.create_task(outer.read(sink := Sink()))
        await asyncio.sleep(0)
        connection.data_received(chunk(b"taken"))
        reader.cancel()
        await asyncio.wait([reader])
        known, sink = weakref.ref(sink), None
        del reader
        assert known() is None


async def test_sink_when_it_fails_as_its_reader_is_cancelled_then_the_error_does_not_keep_the_closed_reply() -> None:
    with garbage() as left:
        connection, reply, _ = begun()
        reader = await waiting(reply, Sink(fault=b"a"))
        connection.data_received(chunk(b"a"))
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        reply.close()
        connection.connection_lost(None)
        del connection, reply, reader
    assert not {"Reply", "Sink", "ZeroDivisionError"} & left


async def test_sink_when_it_refuses_a_piece_then_the_reader_gets_it_with_all_behind_it() -> None:
    connection, reply, _ = begun()
    reader = await waiting(reply, sink := Sink(refused=b"b"))
    for piece in (b"a", b"b", b"c"):
        connection.data_received(chunk(piece))
    assert (await reader, sink.offered) == (b"bc", [b"a", b"b"])


async def test_sink_when_nobody_waits_or_the_reader_has_none_then_it_is_offered_nothing() -> None:
    connection, reply, transport = begun(read_ahead=2)
    reader = await waiting(reply, sink := Sink(refused=b"a"))
    connection.data_received(chunk(b"a"))
    assert await reader == b"a"
    connection.data_received(chunk(b"bcd"))
    assert transport.is_paused
    assert await reply.read(sink) == b"bcd"
    assert not transport.is_paused
    reader = await waiting(reply, None)
    connection.data_received(chunk(b"e"))
    assert (await reader, sink.offered) == (b"e", [b"a"])


@pytest.mark.parametrize("behind", [b"", chunk(b"c"), END, chunk(b"c") + END], ids=["alone", "more", "end", "both"])
async def test_sink_when_it_fails_then_its_reader_gets_the_error_and_nothing_behind_that_piece(behind: bytes) -> None:
    connection, reply, transport = begun()
    reader = await waiting(reply, sink := Sink(fault=b"b"))
    connection.data_received(chunk(b"a"))
    connection.data_received(chunk(b"b") + (behind if behind.startswith(b"0") else b""))
    if behind:
        connection.data_received(behind)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await (reader if not reader.done() else reply.read(sink))
    assert (transport.is_aborted, sink.offered) == (True, [b"a", b"b"])


async def test_sink_when_its_reader_is_cancelled_then_it_is_offered_nothing_more() -> None:
    connection, reply, _ = begun()
    reader = await waiting(reply, sink := Sink())
    reader.cancel()
    connection.data_received(chunk(b"a"))
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (await reply.read(), sink.offered) == (b"a", [])


async def test_sink_when_the_provider_breaks_off_then_its_reader_is_told() -> None:
    connection, reply, _ = begun()
    reader = await waiting(reply, Sink())
    connection.data_received(chunk(b"a"))
    connection.connection_lost(None)
    with pytest.raises(UpstreamFailed):
        await reader


async def test_gap_when_a_sink_takes_pieces_then_it_begins_anew_with_each() -> None:
    loop = asyncio.get_running_loop()
    connection, reply, _ = begun()
    reader = await waiting(reply, Sink())
    for _ in range(5):
        await asyncio.sleep(GAP_S / 2)
        connection.data_received(chunk(b"a"))
    last = loop.time()
    with pytest.raises(UpstreamTimeout) as caught:
        await reader
    assert caught.value.code == "upstream_gap_timeout"
    assert GAP_S * 0.9 < loop.time() - last < GAP_S * 4


async def test_total_time_when_a_sink_takes_pieces_then_it_holds() -> None:
    # Less than a gap: on a machine that stands still for long, the gap of a reply may end as well, but later.
    connection, reply, _ = begun(total_s=GAP_S / 2)
    reader = await waiting(reply, Sink())
    while not reader.done():
        connection.data_received(chunk(b"a"))
        await asyncio.sleep(GAP_S / 10)
    with pytest.raises(UpstreamTimeout) as caught:
        await reader
    assert caught.value.code == "upstream_total_timeout"
