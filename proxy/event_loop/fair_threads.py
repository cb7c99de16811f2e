"""Shares the interpreter between the event loop and threads with long work: the loop first, then the shortest work.

Only one thread at a time can hold the interpreter lock (GIL), and a thread that releases it for a moment competes for
it again. If several threads scanned large texts, the event loop would wait for each of them at every step. So the
threads take turns: one works, the others sleep in a `Lane`. After a millisecond the working thread sleeps until the
event loop has nothing left to do, and then the thread that has worked least so far continues: a short text is scanned
at once, however many large ones are waiting.

Releasing the lock is not enough to end a turn. Each call of RE2 releases it for some microseconds; whoever waits for it
is woken, finds it taken again, and has to wait for a whole switch interval before it can demand it. With a call every
10 microseconds (8 MB of groups of digits), that kept the loop waiting for up to half a second. So the thread sleeps.

Source: CPython 3.11, Python/ceval_gil.h, `take_gil` and `drop_gil`.
"""

import heapq
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

MAIN: Final = threading.main_thread().ident
"""The thread of the event loop."""
_TURN_S: Final = 0.001
"""How long a thread may keep the interpreter; the event loop may have to wait that long several times in one turn."""
_IDLE_S: Final = 0.05
"""A thread outside of the lane that has not called `give_way` for so long was idle, or in one long call."""
_WAY_S: Final = 0.000_05
"""One sleep: long enough for the event loop's thread to wake up."""
_AT_ONCE_S: Final = 0.000_25
"""A thread whose sleep took longer had to wait for the event loop, which is still busy, or for a core."""
_MOST_S: Final = 0.002
"""How long a thread sleeps at most between turns, so that it has a third of the time if the event loop never rests."""
_STUCK_S: Final = 0.01
"""A thread that has not left the lane for so long is in a call that needs no interpreter, such as a search of RE2."""


class Lane:
    """Admits one thread at a time: the one that has worked least so far.

    `stuck_s`: a thread that has not left for so long is in one long call, or waits for what another one has. The next
    is admitted beside it.
    """

    def __init__(self, stuck_s: float = _STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._lock = threading.Lock()
        self._holder: object = None
        self._since = 0.0
        self._waiting: list[tuple[float, int, threading.Lock]] = []
        self._came = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def enter(self, worked_s: float) -> object:
        """Wait for the turn of a thread that has worked so long; return what `leave` needs."""
        gate = threading.Lock()
        with self._lock:
            if self._holder is None:
                self._hand_to(gate)
                return gate
            gate.acquire()
            self._came += 1
            heapq.heappush(self._waiting, (worked_s, self._came, gate))
            patience_s = self._stuck_s * len(self._waiting)  # all together look often enough
        while not gate.acquire(timeout=patience_s):
            with self._lock:
                if self._waiting and time.perf_counter() - self._since > self._stuck_s:
                    self._admit()
        return gate

    def leave(self, holder: object) -> None:
        """Admit the next one, unless that was done already."""
        with self._lock:
            if self._holder is not holder:
                return
            if self._waiting:
                self._admit()
            else:
                self._holder = None

    def _admit(self) -> None:
        gate = heapq.heappop(self._waiting)[2]
        self._hand_to(gate)
        gate.release()

    def _hand_to(self, holder: object) -> None:
        self._holder = holder
        self._since = time.perf_counter()


class _Way(threading.local):
    until = 0.0
    worked_s = 0.0
    lane: Lane | None = None
    """The lane of the work that this thread is doing; `None`: it is in no lane."""
    holder: object = None


_way = _Way()
_LANE: Final = Lane()


def in_turn(work: Callable[[], T], lane: Lane = _LANE) -> T:
    """Do `work` in this thread, taking turns with other threads; return its result. Not for the event loop's thread."""
    way = _way
    if way.lane is not None:  # called by work that is in the lane already
        return work()
    way.lane, way.worked_s = lane, 0.0
    way.holder = lane.enter(0.0)
    way.until = time.perf_counter() + _TURN_S
    try:
        return work()
    finally:
        lane.leave(way.holder)
        way.lane = None


def give_way() -> None:
    """End this thread's turn if its millisecond is over. Long work calls it often; the event loop may."""
    if threading.get_ident() == MAIN:
        return
    way = _way
    late_s = (now := time.perf_counter()) - way.until
    if late_s < 0:
        return
    lane = way.lane
    if lane is not None:
        way.worked_s += late_s + _TURN_S
        lane.leave(way.holder)
        _sleep(now)
        way.holder = lane.enter(way.worked_s)
        now = time.perf_counter()
    elif late_s < _IDLE_S:
        now = _sleep(now)
    way.until = now + _TURN_S


def _sleep(now: float) -> float:
    """Sleep until the event loop rests, but not for long; return the time."""
    until = now + _MOST_S
    while True:
        time.sleep(_WAY_S)
        before, now = now, time.perf_counter()
        if now - before < _AT_ONCE_S or now > until:
            return now
