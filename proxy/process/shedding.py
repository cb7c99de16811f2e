"""Load shedding: refuse new requests while the process is short of CPU time or memory, fairly and by priority.

    event loop late, memory full
    --content_*--> prompts and answers are no longer captured
    --fair_*-----> a project that has its even share of the running requests gets no more, except critical ones
    --full_*-----> only critical requests are admitted
    --closed_*---> no request is admitted
    --reset_memory--> the request that holds most memory is ended, one after the other

The usual cause is one project that floods a shared sidecar, which the others should not notice; hence the first steps.
The next ones let running requests finish. A running request is ended only if the system would otherwise kill the whole
process. The management API and the ops port are never refused: operators need them then.

Projects decide which of their requests are critical. While any project allows critical requests, `critical_share` of
all requests that may run at once is reserved for them.

Lateness counts once it was measured three times in a row, so a single long step (a reload, a large body) has no effect;
the first measurement in time resets it. Memory is the resident size, not the usage of the control group: that includes
the page cache of the journal's files, which the kernel reclaims when needed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from proxy.config.shedding import Shedding as Settings
from proxy.errors import Overloaded
from proxy.metrics import Metrics, Sample
from proxy.process import memory

_LOOK_S: Final = 0.1
_LOOKS: Final = 3
_TIDY_S: Final = 10.0
_RESET_S: Final = 0.5
"""Pause after a request was ended, so that its memory is free before another one is chosen."""
_RETRY_AFTER_S: Final = 1.0
_CALM, _CONTENT, _FAIR, _FULL, _CLOSED, _RESET = range(6)
_REASONS: Final = {
    "memory": ("Sidegate is short of memory", "overloaded_memory"),
    "lag": ("Sidegate is too busy", "overloaded_lag"),
}
_LEVELS: Final = (
    "5: the request that holds most memory is ended; 4: every new request is refused; 3: all but critical ones; "
    "2: those of projects beyond their even share; 1: nothing is captured; 0: normal."
)


class Shedding:
    """Watches the process and decides which requests are admitted. `limit_bytes`: of the control group."""

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
        """Running requests by project, without zeros."""
        self._total = self._critical = 0
        self._uncaptured = self._ended = 0
        self.follow(settings, concurrent_requests)

    @property
    def running(self) -> int:
        """Number of running requests of all projects."""
        return self._total

    def follow(self, settings: Settings, concurrent_requests: int) -> None:
        """Apply a changed configuration."""
        self._settings = settings
        self._most_normal = concurrent_requests - int(concurrent_requests * settings.critical_share)

    def most_body_bytes(self, buffered_bytes: int) -> int:
        """Return the limit for all request bodies together: a burst of them arrives before memory is measured again."""
        limit = self._limit_bytes
        return min(buffered_bytes, int(limit * self._settings.bodies_memory)) if limit else buffered_bytes

    def check(self) -> None:
        """Admit a request whose project is not known yet: refusing it early is cheapest. Raises Overloaded."""
        if self._level >= _CLOSED or (self._level == _FULL and not self._has_critical()):
            raise self._refusal("; send the request again.")

    def enter(self, project: str, *, is_critical: bool) -> None:
        """Count a request whose project is known, until `leave`. Raises Overloaded, without counting it."""
        running = self._running.get(project, 0)
        if not is_critical:
            self._check_normal(running)
        self._running[project] = running + 1
        self._total += 1
        self._critical += is_critical

    def leave(self, project: str, *, is_critical: bool) -> None:
        """Stop counting a request."""
        self._total -= 1
        self._critical -= is_critical
        running = self._running[project] - 1
        if running:
            self._running[project] = running
        else:
            del self._running[project]

    def may_capture(self) -> bool:
        """Tell whether bodies of a request may be captured for its trace; a refusal is counted."""
        if self._level == _CALM:
            return True
        self._uncaptured += 1
        return False

    def note(self, lag_s: float, resident_bytes: int) -> None:
        """Evaluate the state of the process: the lateness of its event loop and its resident memory."""
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
        """Measure ten times per second, until cancelled. Return free memory to the system when it is short.

        `end_largest`: ends the running request that holds most memory; False if none holds much.
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
                    tidied_at = -_TIDY_S  # its memory is free now, but not returned to the system yet
                ended_at = now

    def samples(self) -> Iterable[Sample]:
        """Return the metrics."""
        for reason, level in self._levels.items():
            yield Sample("gauge", "sidegate_shedding", _LEVELS, {"reason": reason}, level)
        text = "Requests whose content was not captured, for lack of time or memory."
        yield Sample("counter", "sidegate_shedding_uncaptured", text, {}, self._uncaptured)
        text = "Running requests that were ended for lack of memory."
        yield Sample("counter", "sidegate_shedding_ended", text, {}, self._ended)
        text = "Critical requests being handled."
        yield Sample("gauge", "sidegate_critical_requests_in_flight", text, {}, self._critical)
        text = "Resident memory of this process."
        yield Sample("gauge", "sidegate_memory_resident_bytes", text, {}, self._resident_bytes)
        text = "Memory limit of this process; 0: none is known."
        yield Sample("gauge", "sidegate_memory_limit_bytes", text, {}, self._limit_bytes or 0)

    @property
    def _limit_bytes(self) -> int | None:
        return self._settings.memory_limit_bytes or self._group_limit_bytes

    def _check_normal(self, running: int) -> None:
        """Admit a request that is not critical, given its project's running requests. Raises Overloaded."""
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
