"""How pieces pass from the connection to a taker: at once, in order, and none lost when it stops or fails."""

import asyncio

import pytest

from proxy.errors import UpstreamFailed
from proxy.upstream.lean_reply import Reply


class Line:
    """A connection that notes what its reply asks of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def await_more(self) -> None:
        self.asked.append("more")

    def await_nothing(self) -> None:
        self.asked.append("nothing")

    def resume(self) -> None:
        self.asked.append("resume")

    def abort(self) -> None:
        self.asked.append("abort")


class Taker:
    """Takes pieces; stops behind each of `stops`, raises at `fails`."""

    def __init__(self, *stops: bytes, fails: bytes | None = None) -> None:
        self.pieces: list[bytes] = []
        self._stops = stops
        self._fails = fails

    def __call__(self, piece: bytes) -> bool:
        if piece == self._fails:
            raise UpstreamFailed("taken badly")
        self.pieces.append(piece)
        return piece not in self._stops


async def started(reply: Reply, take: Taker) -> asyncio.Task[bool]:
    task = asyncio.ensure_future(reply.pass_to(take))
    await asyncio.sleep(0)
    return task


def reply_on(line: Line) -> Reply:
    reply = Reply(line, asyncio.get_running_loop())
    reply.take_head(200, "OK", [])
    return reply


async def test_pieces_when_they_arrive_then_taken_in_that_moment_and_the_end_ends_it():
    line, take = Line(), Taker()
    reply = reply_on(line)
    reply.take(b"early")
    task = await started(reply, take)
    assert take.pieces == [b"early"]
    for piece in (b"1", b"2"):
        assert reply.take(piece) == 0
        assert take.pieces[-1] == piece
        assert not task.done()
    assert line.asked == ["resume", "more", "more", "more"]
    reply.end()
    assert await task is False
    assert take.pieces == [b"early", b"1", b"2"]
    assert await reply.pass_to(take) is False


async def test_taker_when_it_wants_no_more_then_what_comes_is_kept_and_counted():
    line, take = Line(), Taker(b"1")
    reply = reply_on(line)
    task = await started(reply, take)
    assert reply.take(b"1") == 0
    assert reply.take(b"22") == 2
    reply.end()
    assert await task is True
    assert line.asked == ["more"]
    assert take.pieces == [b"1"]
    assert await reply.pass_to(take) is False
    assert take.pieces == [b"1", b"22"]


async def test_taker_when_it_stops_at_what_waited_then_nothing_is_waited_for():
    take = Taker(b"early")
    reply = reply_on(Line())
    reply.take(b"early")
    assert await reply.pass_to(take) is True


async def test_taker_when_it_fails_then_its_own_task_gets_the_error_and_the_connection_does_not():
    take = Taker(fails=b"2")
    reply = reply_on(Line())
    task = await started(reply, take)
    reply.take(b"1")
    reply.take(b"2")
    reply.take(b"3")
    reply.end()
    with pytest.raises(UpstreamFailed, match="taken badly"):
        await task
    assert take.pieces == [b"1"]
    assert await reply.read() == b"3"


async def test_body_when_it_breaks_then_after_what_came_before():
    take = Taker()
    reply = reply_on(Line())
    task = await started(reply, take)
    reply.take(b"1")
    reply.fail(UpstreamFailed("cut"))
    with pytest.raises(UpstreamFailed, match="cut"):
        await task
    assert take.pieces == [b"1"]
    with pytest.raises(UpstreamFailed, match="cut"):
        await reply.pass_to(take)


async def test_taker_when_its_task_is_cancelled_then_nothing_is_handed_over_any_more():
    line, take = Line(), Taker()
    reply = reply_on(line)
    task = await started(reply, take)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reply.take(b"1") == 1
    assert take.pieces == []
    assert line.asked == ["more", "nothing"]
