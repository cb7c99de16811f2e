"""Refuses new requests while the process is short of time or memory: what matters least first, and fairly.

    event loop late, memory full
    --content_*--> nothing of prompts and answers is captured any more
    --fair_*-----> a project with its even share of the running requests gets no more, unless they are critical
    --full_*-----> only critical requests begin
    --closed_*---> nobody begins anything
    --reset_memory--> the request that holds most memory is ended, one after the other

Why so many degrees: one project that floods a shared sidecar is the usual reason, and the others should not notice.
Where that does not help, whoever runs shall at least come to an end. A running request is given up only where the
system would end the whole process next. The management API and the ops port are never refused: an operator looks there.

Which requests are critical, their projects say. As long as one may have such requests, `critical_share` of all that may
run at once is kept for them.

Lateness counts once it was seen three times in a row, so one long step (a reload, a large body) refuses nobody; the
first look that is in time ends it. Memory is what is resident, not what the control group counts: that has the pages of
the journal's files in it, which the kernel takes back when it wants.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from proxy import memory
from proxy.config.shedding import Shedding as Settings
from proxy.errors import Overloaded
from proxy.metrics import Metrics, Sample

_LOOK_S: Final = 0.1
_LOOKS: Final = 3
_TIDY_S: Final = 10.0
_RESET_S: Final = 0.5
"""Between one request that is ended and the next: its memory has to be free before another has to go."""
_RETRY_AFTER_S: Final = 1.0
_CALM, _CONTENT, _FAIR, _FULL, _CLOSED, _RESET = range(6)
_REASONS: Final = {
    "memory": ("Sidegate is short of memory", "overloaded_memory"),
    "lag": ("Sidegate is too busy", "overloaded_lag"),
}
_LEVELS: Final = (
    "5: the request that holds most memory is ended; 4: every new request is refused; 3: but critical ones; "
    "2: those of projects beyond their even share; 1: nothing is captured; 0: all is well."
)


class Shedding:
    """Watches the process and says what may begin. `limit_bytes`: of the control group."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        limit_bytes: int | None,
        *,
        concurrent_requests: int,
        has_critical: Callable[[], bool] = lambda: False,
    ) -> None:
        self._metrics = metrics
        self._group_limit_bytes = limit_bytes
        self._has_critical = has_critical
        self._lags: deque[float] = deque([0.0] * _LOOKS, _LOOKS)
        self._resident_bytes = 0
        self._levels = {"memory": _CALM, "lag": _CALM}
        self._level = _CALM
        self._running: dict[str, int] = {}
        """Requests by project; none with 0."""
        self._total = self._critical = 0
        self._uncaptured = self._ended = 0
        self.follow(settings, concurrent_requests)

    @property
    def running(self) -> int:
        """Requests of all projects."""
        return self._total

    def follow(self, settings: Settings, concurrent_requests: int) -> None:
        """Take over a changed configuration."""
        self._settings = settings
        self._most_normal = concurrent_requests - int(concurrent_requests * settings.critical_share)

    def most_body_bytes(self, buffered_bytes: int) -> int:
        """Return how much request bodies may hold together: a burst of them is there before memory is looked at."""
        limit = self._limit_bytes
        return min(buffered_bytes, int(limit * self._settings.bodies_memory)) if limit else buffered_bytes

    def check(self) -> None:
        """Let a request begin whose project is not known yet: to refuse it now costs least. Raises Overloaded."""
        if self._level >= _CLOSED or (self._level == _FULL and not self._has_critical()):
            raise self._refusal("; send the request again.")

    def enter(self, project: str, *, is_critical: bool) -> None:
        """Count a request whose project is known; `leave` takes it off again. Raises Overloaded: it was not counted."""
        running = self._running.get(project, 0)
        if not is_critical:
            self._check_normal(running)
        self._running[project] = running + 1
        self._total += 1
        self._critical += is_critical

    def leave(self, project: str, *, is_critical: bool) -> None:
        """Count a request no more."""
        self._total -= 1
        self._critical -= is_critical
        running = self._running[project] - 1
        if running:
            self._running[project] = running
        else:
            del self._running[project]

    def may_capture(self) -> bool:
        """Tell whether bodies of a request may be kept for its trace; where not, it is counted."""
        if self._level == _CALM:
            return True
        self._uncaptured += 1
        return False

    def note(self, lag_s: float, resident_bytes: int) -> None:
        """Judge the state of the process: how late its event loop was just now, and how much memory it has."""
        its = self._settings
        self._lags.append(lag_s)
        self._resident_bytes = resident_bytes
        lag_s = min(self._lags)
        self._levels["lag"] = _level(lag_s, (its.content_lag_s, its.fair_lag_s, its.full_lag_s, its.closed_lag_s))
        limit = self._limit_bytes
        share = resident_bytes / limit if limit else 0.0
        self._levels["memory"] = _level(
            share, (its.content_memory, its.fair_memory, its.full_memory, its.closed_memory, its.reset_memory)
        )
        self._level = max(self._levels.values())

    async def watch(self, end_largest: Callable[[Overloaded], bool]) -> None:
        """Look ten times in a second, until cancelled. Short of memory, give back to the system what is free.

        `end_largest`: ends the running request that holds most memory; False where none holds much.
        """
        loop = asyncio.get_running_loop()
        tidied_at, ended_at = -_TIDY_S, -_RESET_S
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._metrics.loop_lag_s = lag_s = max(loop.time() - due, 0.0)
            self.note(lag_s, memory.resident_bytes())
            now = time.monotonic()
            if self._levels["memory"] >= _FAIR and now - tidied_at >= _TIDY_S:
                await asyncio.to_thread(memory.tidy)
                tidied_at = time.monotonic()
            elif self._levels["memory"] == _RESET and now - ended_at >= _RESET_S:
                if end_largest(self._refusal(" and ended what held most of it; send the request again.")):
                    self._ended += 1
                    tidied_at = -_TIDY_S  # what it held is free, but not given back yet
                ended_at = now

    def samples(self) -> Iterable[Sample]:
        """Return what Prometheus is told."""
        for reason, level in self._levels.items():
            yield Sample("gauge", "sidegate_shedding", _LEVELS, {"reason": reason}, level)
        text = "Requests of which nothing was captured, for want of time or memory."
        yield Sample("counter", "sidegate_shedding_uncaptured", text, {}, self._uncaptured)
        text = "Running requests that were ended for want of memory."
        yield Sample("counter", "sidegate_shedding_ended", text, {}, self._ended)
        text = "Critical requests being handled."
        yield Sample("gauge", "sidegate_critical_requests_in_flight", text, {}, self._critical)
        text = "Memory of this process."
        yield Sample("gauge", "sidegate_memory_resident_bytes", text, {}, self._resident_bytes)
        text = "Memory that it may have; 0: no limit is known."
        yield Sample("gauge", "sidegate_memory_limit_bytes", text, {}, self._limit_bytes or 0)

    @property
    def _limit_bytes(self) -> int | None:
        return self._settings.memory_limit_bytes or self._group_limit_bytes

    def _check_normal(self, running: int) -> None:
        """Let a request begin that is not critical, of a project that has so many. Raises Overloaded."""
        if self._level >= _FAIR:
            if self._level >= _FULL:
                raise self._refusal("; send the request again.")
            projects = len(self._running) + (not running)
            if (running + 1) * projects > self._total + 1:
                raise self._refusal(", and this project has its share of what runs; send the request again.")
        if self._total - self._critical >= self._most_normal and self._has_critical():
            raise Overloaded(
                f"Too many requests at once: the limit is {self._most_normal}, the rest is for critical ones.",
                code="too_many_requests_in_flight",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _refusal(self, advice: str) -> Overloaded:
        because, code = _REASONS[max(self._levels, key=self._levels.__getitem__)]
        return Overloaded(because + advice, code=code, retry_after_s=_RETRY_AFTER_S)


def _level(value: float, bounds: tuple[float, ...]) -> int:
    """Return the number of the highest bound that is reached."""
    return max((number for number, bound in enumerate(bounds, 1) if value >= bound), default=_CALM)
