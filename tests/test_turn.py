"""Writes of one turn of the event loop: order, and when they leave."""

import asyncio

from proxy.turn import LoopTurn


async def _turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_write_when_alone_in_its_turn_then_it_leaves_at_once():
    turn, written = LoopTurn(), []
    for data in (b"1", b"2"):
        turn.write(written.append, data)
        assert written[-1] == data
        await _turns()
    assert written == [b"1", b"2"]


async def test_writes_when_several_in_one_turn_then_the_later_ones_leave_together_at_its_end():
    turn, written = LoopTurn(), []
    for data in (b"1", b"2", b"3"):
        turn.write(written.append, data)
    assert written == [b"1"]
    await _turns()
    assert written == [b"1", b"2", b"3"]


async def test_writes_when_flushed_then_each_leaves_once_and_in_order():
    turn, written = LoopTurn(), []
    for data in (b"1", b"2", b"3"):
        turn.write(written.append, data)
    turn.flush()
    turn.write(written.append, b"4")
    assert written == [b"1", b"2", b"3"]
    await _turns()
    assert written == [b"1", b"2", b"3", b"4"]


async def test_write_when_the_turn_before_had_several_then_the_first_is_kept_too_until_one_is_alone_again():
    turn, written = LoopTurn(), []
    for data in (b"1", b"2"):
        turn.write(written.append, data)
    await _turns()
    for data in (b"3", b"4"):
        turn.write(written.append, data)
    assert written == [b"1", b"2"]
    await _turns()
    turn.write(written.append, b"5")
    assert written == [b"1", b"2", b"3", b"4"]
    await _turns()
    turn.write(written.append, b"6")
    assert written == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_write_when_a_flush_came_before_the_end_of_the_turn_then_nothing_is_lost_or_written_twice():
    turn, written = LoopTurn(), []
    for _ in range(3):
        for number in range(3):
            turn.write(written.append, b"%d" % number)
        turn.flush()
        await _turns()
    assert written == [b"0", b"1", b"2"] * 3
