import asyncio

from proxy.upstream.lean_deadline import Deadline


class _Clock:
    """A loop reduced to its timers."""

    def __init__(self):
        self.now = 0.0
        self.armed = []
        self.made = 0

    def time(self):
        return self.now

    def call_at(self, at, callback):
        self.made += 1
        handle = asyncio.TimerHandle(at, callback, (), self)
        self.armed.append(handle)
        return handle

    def get_debug(self):
        return False

    def _timer_handle_cancelled(self, handle):
        self.armed.remove(handle)

    def run_to(self, now):
        while due := [handle for handle in self.armed if handle.when() <= now]:
            first = min(due, key=lambda handle: handle.when())
            self.armed.remove(first)
            self.now = first.when()
            first._callback()
        self.now = now


def test_deadline_when_moved_later_a_thousand_times_arms_few_timers_and_fires_once():
    clock, fired = _Clock(), []
    deadline = Deadline(clock, lambda code: fired.append((clock.now, code)))
    for step in range(1000):
        clock.run_to(step)
        deadline.set(step + 100, "gap")
    assert clock.made < 15
    clock.run_to(5000)
    assert fired == [(1099, "gap")]
    assert not clock.armed


def test_deadline_when_moved_earlier_fires_at_the_earlier_time():
    clock, fired = _Clock(), []
    deadline = Deadline(clock, lambda code: fired.append((clock.now, code)))
    deadline.set(100, "total")
    deadline.set(10, "gap")
    clock.run_to(500)
    assert fired == [(10, "gap")]


def test_deadline_when_cleared_or_let_go_never_fires():
    clock, fired = _Clock(), []
    deadline = Deadline(clock, fired.append)
    deadline.set(10, "gap")
    deadline.clear()
    clock.run_to(20)
    deadline.set(30, "gap")
    deadline.let_go()
    assert not clock.armed
    clock.run_to(40)
    assert fired == []
