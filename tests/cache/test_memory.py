"""Answers in memory, against a model of what may be there."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.cache.memory import _OVERHEAD_BYTES as OVERHEAD
from proxy.cache.memory import Kept, Memory, Ready
from proxy.exchange import Meter

READY = Ready(b"", b"y" * 100, Meter())


def kept(body: bytes = b"x", at: float = 0.0, form="whole") -> Kept:
    return Kept(form, b"application/json", body, True, at)


def test_get_when_put_then_the_same_object_until_its_time_is_over():
    memory, answer = Memory(10_000, 5.0), kept(at=1.0)
    memory.put(b"a", answer)
    assert memory.get(b"a", "whole", 5.9) is answer
    assert memory.get(b"a", "events", 2.0) is None
    assert memory.get(b"a", "whole", 6.0) is None
    assert (len(memory), memory.used_bytes, memory.evictions) == (0, 0, 0)


def test_put_when_there_is_no_room_then_the_one_unused_longest_goes():
    memory = Memory(2 * (OVERHEAD + 1), 5.0)
    memory.put(b"a", kept())
    memory.put(b"b", kept())
    memory.get(b"a", "whole", 0.0)
    memory.put(b"c", kept())
    assert [memory.get(name, "whole", 0.0) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert memory.evictions == 1


def test_put_when_an_answer_alone_is_too_large_then_it_and_its_predecessor_are_not_kept():
    memory = Memory(1000, 5.0)
    memory.put(b"a", kept())
    memory.put(b"a", kept(b"x" * 1000))
    assert (len(memory), memory.used_bytes) == (0, 0)


def test_put_beside_when_there_is_room_for_both_then_it_counts_and_goes_with_its_answer():
    memory, answer = Memory(3 * OVERHEAD + 102, 5.0), kept()
    memory.put(b"b", kept())
    memory.put(b"a", answer)
    memory.put_beside(b"a", answer, "bare", READY)
    assert (answer.ready, memory.used_bytes, len(memory)) == ({"bare": READY}, 3 * OVERHEAD + 102, 2)
    memory.put_beside(b"a", answer, "events", Ready(b"", answer.body, Meter()))
    assert (memory.used_bytes, len(memory), memory.evictions) == (3 * OVERHEAD + 101, 1, 1)
    memory.put_beside(b"a", answer, "whole", READY)
    assert "whole" not in answer.ready
    memory.put(b"a", kept())
    assert (memory.used_bytes, len(memory)) == (OVERHEAD + 1, 1)


def test_put_beside_when_others_were_asked_for_meanwhile_then_they_make_room_and_one_that_was_dropped_takes_none():
    memory, answer = Memory(3 * OVERHEAD + 102, 5.0), kept()
    memory.put(b"a", answer)
    for name in (b"b", b"c"):
        memory.put(name, kept())
    memory.put_beside(b"a", answer, "bare", READY)
    memory.put_beside(b"a", answer, "bare", READY)
    assert memory.get(b"a", answer.form, answer.made_at) is answer
    assert (memory.used_bytes, len(memory)) == (3 * OVERHEAD + 102, 2)
    memory.put(b"a", kept())
    used = memory.used_bytes
    memory.put_beside(b"a", answer, "events", READY)
    assert (memory.used_bytes, "events" in answer.ready) == (used, False)


STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900), st.sampled_from(["whole", "events"])))


@given(STEPS, st.integers(0, 4000))
def test_memory_when_used_in_any_way_then_never_beyond_its_bound_and_never_another_answer(steps, limit):
    memory, latest = Memory(limit, 50.0), {}
    for at, (name, size, form) in enumerate(steps):
        answer = kept(b"x" * size, float(at), form)
        memory.put(name.encode(), answer)
        latest[name, form] = answer
        assert memory.used_bytes <= limit
        for (other, shape), expected in latest.items():
            found = memory.get(other.encode(), shape, float(at))
            assert found is None or found is expected
