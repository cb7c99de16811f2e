"""Writes of one turn of the event loop: order, when they leave, and what becomes of those that wait."""

import asyncio

import pytest

from proxy.event_loop.write_batching import LoopTurn, Outlet
from tests.fakes.garbage import garbage


class Socket(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, written: list[bytes]) -> None:
        super().__init__()
        self.written = written
        self.is_shut = False

    def write(self, data) -> None:
        assert not self.is_shut
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_shut

    def close(self) -> None:
        self.is_shut = True
        self.written.append(b"closed")

    def abort(self) -> None:
        self.is_shut = True
        self.written.append(b"aborted")

    unsent_bytes = 7

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes


def outlets(count: int) -> tuple[list[bytes], list[Outlet]]:
    """Connections that share a turn and one list of what is written."""
    turn, written = LoopTurn(), []
    made = [Outlet(turn) for _ in range(count)]
    for outlet in made:
        outlet.connected(Socket(written))
    return written, made


def kept() -> tuple[list[bytes], Outlet]:
    """An outlet with an answer that waits for the end of the turn."""
    written, (other, outlet) = outlets(2)
    assert other.write_in_turn(b"other")
    assert outlet.write_in_turn(b"answer")
    assert outlet.kept
    assert written.pop() == b"other"
    return written, outlet


async def _turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_write_when_alone_in_its_turn_then_it_leaves_at_once():
    written, (outlet,) = outlets(1)
    for data in (b"1", b"2"):
        outlet.write_in_turn(data)
        assert written[-1] == data
        await _turns()
    assert written == [b"1", b"2"]


async def test_writes_when_several_in_one_turn_then_the_later_ones_leave_together_at_its_end():
    written, made = outlets(3)
    for outlet, data in zip(made, (b"1", b"2", b"3"), strict=True):
        outlet.write_in_turn(data)
    assert written == [b"1"]
    await _turns()
    assert written == [b"1", b"2", b"3"]


async def test_write_when_the_turn_before_had_several_then_the_first_kept_too_until_one_is_alone_again():
    written, made = outlets(2)
    for outlet, data in zip(made, (b"1", b"2"), strict=True):
        outlet.write_in_turn(data)
    await _turns()
    for outlet, data in zip(made, (b"3", b"4"), strict=True):
        outlet.write_in_turn(data)
    assert written == [b"1", b"2"]
    await _turns()
    made[0].write_in_turn(b"5")
    assert written == [b"1", b"2", b"3", b"4"]
    await _turns()
    made[0].write_in_turn(b"6")
    assert written == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_answers_when_one_connection_has_several_in_a_turn_then_they_stay_in_order():
    written, outlet = kept()
    outlet.write_in_turn(b" and another")
    await _turns()
    assert written == [b"answer and another"]


async def test_write_at_once_when_an_answer_waits_then_it_does_not_overtake_it():
    written, outlet = kept()
    assert outlet.write(b"a large one")
    await _turns()
    assert written == [b"answer", b"a large one"]


async def test_close_when_an_answer_waits_then_it_is_sent_before():
    written, outlet = kept()
    outlet.close()
    await _turns()
    assert written == [b"answer", b"closed"]


async def test_outlet_when_nothing_waits_here_or_in_the_transport_then_it_is_drained():
    written, outlet = kept()
    outlet._transport.unsent_bytes = 0
    assert not outlet.is_drained()
    await _turns()
    assert (written, outlet.is_drained()) == ([b"answer"], True)
    outlet._transport.unsent_bytes = 1
    assert not outlet.is_drained()
    outlet._transport.unsent_bytes = 0
    outlet.close()
    assert not outlet.is_drained()
    outlet.lost()
    assert not outlet.is_drained()


async def test_abort_when_an_answer_waits_then_it_is_discarded():
    written, outlet = kept()
    outlet.abort()
    await _turns()
    assert (written, outlet.is_drained(), outlet.write(b"x"), outlet.write_in_turn(b"x")) == (
        [b"aborted"],
        False,
        False,
        False,
    )


async def test_connection_when_it_closes_or_is_lost_while_an_answer_waits_then_nothing_is_written():
    for end in (lambda one: one._transport.close(), Outlet.lost):
        written, outlet = kept()
        end(outlet)
        await _turns()
        assert b"answer" not in written
        assert not outlet.write(b"x")


async def test_unsent_bytes_when_an_answer_waits_then_it_counts():
    _, outlet = kept()
    assert outlet.unsent_bytes == 7 + len(b"answer")
    outlet.lost()
    assert outlet.unsent_bytes == 0


async def test_drain_when_the_peer_reads_again_then_all_who_wait_go_on():
    _, (outlet,) = outlets(1)
    await outlet.drain()
    outlet.pause()
    waiting = [asyncio.create_task(outlet.drain()) for _ in range(3)]
    await _turns()
    waiting[0].cancel()
    await _turns()
    assert [one.done() for one in waiting] == [True, False, False]
    outlet.resume()
    await asyncio.gather(*waiting[1:])


async def test_drain_when_the_peer_is_gone_then_it_says_so_and_leaves_no_garbage():
    with garbage() as left:
        _, (outlet,) = outlets(1)
        outlet.pause()
        waiting = asyncio.create_task(outlet.drain())
        await _turns()
        outlet.lost()
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await outlet.drain()
        del waiting, outlet
    assert not {"Outlet", "Socket"} & left
