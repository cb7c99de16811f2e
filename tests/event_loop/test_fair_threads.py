"""A thread that works for long sleeps often enough for the event loop to get the interpreter."""

import random
import resource
import threading
import time
from collections.abc import Callable

import pytest

from proxy.event_loop.fair_threads import Lane, give_way, in_turn
from proxy.nouns.findings import let_go
from proxy.openai import json_steps, key_counts, long_strings
from proxy.openai.input_text import input_text_bytes
from proxy.policy import base64_runs, places
from proxy.policy.detect import Detector
from proxy.policy.rules import RuleSet, read_rules

NUMBERS = Detector(
    RuleSet(tuple(read_rules([{"id": "r", "category": "pii", "severity": "high", "pattern": r"\d{4} \d{4}"}])))
)


def _sleeps(work: Callable[[], object], *, on_thread: bool = True) -> int:
    """Return how often the thread that does `work` has slept in it."""
    slept: list[int] = []

    def measured() -> None:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        work()
        slept.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    thread = threading.Thread(target=measured)
    if on_thread:
        thread.start()
        thread.join()
    else:
        measured()
    return slept[0]


def _works_for(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        give_way()


def test_give_way_when_a_thread_works_for_long_then_it_sleeps_every_few_milliseconds() -> None:
    assert _sleeps(lambda: _works_for(0.06)) >= 5


def test_give_way_when_the_event_loop_works_or_a_thread_was_elsewhere_then_nobody_sleeps() -> None:
    assert _sleeps(lambda: _works_for(0.03), on_thread=False) < 3
    assert _sleeps(give_way) < 2


@pytest.mark.parametrize(
    "work",
    [
        lambda: NUMBERS.find(" ".join(f"{number * 7919 % 9973:04} {number:04} w" for number in range(10_000))),
        lambda: [NUMBERS.suspects(b"no number") for _ in range(40_000)],
        lambda: json_steps.dissolve([[[number]] for number in range(100_000)]),
        lambda: input_text_bytes({"messages": [{"role": "user", "content": "hello"}] * 200_000}),
        lambda: places.gather([{"role": "user", "content": "hello"}] * 50_000),
        lambda: long_strings.load_parted(b'["' + b"prose and " * 4_000_000 + b'"]'),
        lambda: key_counts.are_equal(b"[" + b'{"a":1},' * 500_000 + b"1]", [{"a": 1}] * 500_000),
        lambda: [*base64_runs.runs(b"prose and " * 8_000_000)],
        lambda: let_go([object() for _ in range(2_000_000)]),
        lambda: json_steps.read(b"[" + b'{"a":[[1]]},' * 60_000 + b"1]", 10),
    ],
    ids=[
        "finding",
        "asking",
        "freeing",
        "counting",
        "gathering",
        "decoding",
        "comparing",
        "skipping",
        "forgetting",
        "reading",
    ],
)
def test_threads_when_they_work_for_long_then_they_give_way(work: Callable[[], object]) -> None:
    assert _sleeps(work) >= 3


def test_lane_when_several_work_then_one_at_a_time() -> None:
    lane, inside, most = Lane(stuck_s=10), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            inside += 1
            most = max(most, inside)
            time.sleep(0.0005)
            inside -= 1
            _end_turn()

    def _end_turn() -> None:
        time.sleep(0.001)
        give_way()

    threads = [threading.Thread(target=in_turn, args=(work, lane)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize("seed", range(5))
def test_lane_when_many_wait_then_whoever_has_worked_least_goes_first(seed: int) -> None:
    lane, admitted = Lane(stuck_s=10), list[float]()
    times = [0.001, 0.002, 0.003, 0.5, 1.0, 2.0]
    random.Random(seed).shuffle(times)
    first = lane.enter(0)

    def wait(worked_s: float) -> None:
        holder = lane.enter(worked_s)
        admitted.append(worked_s)
        lane.leave(holder)

    threads = [threading.Thread(target=wait, args=(worked_s,)) for worked_s in times]
    for thread in threads:
        thread.start()
    while len(lane) < len(times):
        time.sleep(0.001)
    lane.leave(first)
    for thread in threads:
        thread.join()
    assert admitted == sorted(times)


def test_lane_when_a_thread_does_not_leave_then_the_next_goes_beside_it_and_only_that() -> None:
    lane, admitted, may_end = Lane(stuck_s=0.02), list[int](), threading.Event()
    stuck = lane.enter(0)

    def wait(number: int) -> None:
        holder = lane.enter(number)
        admitted.append(number)
        if number == 1:
            may_end.wait(10)
        lane.leave(holder)

    first = threading.Thread(target=wait, args=(1,))
    first.start()
    while not admitted:
        time.sleep(0.001)
    lane.leave(stuck)  # not its turn any more: nobody else is admitted for that
    second = threading.Thread(target=wait, args=(2,))
    second.start()
    assert admitted == [1]
    may_end.set()
    first.join()
    second.join()
    assert admitted == [1, 2]


def test_in_turn_when_one_waits_for_what_another_holds_then_both_end() -> None:
    lane, lock, done = Lane(stuck_s=0.01), threading.Lock(), list[str]()

    def holds() -> None:
        with lock:
            _works_for(0.02)
            done.append("holder")

    def needs() -> None:
        with lock:
            done.append("other")

    threads = [threading.Thread(target=in_turn, args=(work, lane)) for work in (holds, needs)]
    for thread in threads:
        thread.start()
        time.sleep(0.005)
    for thread in threads:
        thread.join(10)
    assert done == ["holder", "other"]


def test_in_turn_when_work_is_part_of_such_work_or_fails_then_the_lane_is_free_afterwards() -> None:
    lane = Lane(stuck_s=10)
    assert in_turn(lambda: in_turn(lambda: 1, lane) + 1, lane) == 2
    with pytest.raises(ZeroDivisionError):
        in_turn(lambda: 1 / 0, lane)
    assert in_turn(lambda: 3, lane) == 3
