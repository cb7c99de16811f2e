"""A thread that works for long sleeps often enough for the event loop to get the interpreter."""

import resource
import threading
import time
from collections.abc import Callable

import pytest

from proxy.openai import json_steps
from proxy.policy.detect import Detector
from proxy.policy.rules import RuleSet, read_rules
from proxy.way import give_way

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
        lambda: json_steps.read(b"[" + b'{"a":[[1]]},' * 60_000 + b"1]", 10),
    ],
    ids=["finding", "asking", "freeing", "reading"],
)
def test_threads_when_they_work_for_long_then_they_give_way(work: Callable[[], object]) -> None:
    assert _sleeps(work) >= 3
