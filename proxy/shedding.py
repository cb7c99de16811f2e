"""Refuses new requests while the process is short of time or memory, fairly between projects.

    event loop late, memory full
    --fair_*--> a project with its even share of the running requests gets no more
    --full_*--> nobody begins anything

Why two degrees: one project that floods a shared sidecar is the usual reason, and the others should not notice; where
that does not help, whoever runs shall at least come to an end. Running requests are never touched, nor are the API of
our own and the ops port: they are what an operator looks with.

Lateness counts once it was seen three times in a row, so one long step (a reload, a large body) refuses nobody; the
first look that is in time ends it. Memory is what is resident, not what the control group counts: that has the pages of
the journal's files in it, which the kernel takes back when it wants.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from proxy import memory
from proxy.config.shedding import Shedding as Settings
from proxy.errors import Overloaded
from proxy.metrics import Metrics, Sample

_LOOK_S: Final = 0.1
_LOOKS: Final = 3
_TIDY_S: Final = 10.0
_RETRY_AFTER_S: Final = 1.0
_CALM, _FAIR, _FULL = 0, 1, 2
_REASONS: Final = {
    "memory": ("Sidegate is short of memory", "overloaded_memory"),
    "lag": ("Sidegate is too busy", "overloaded_lag"),
}


class Shedding:
    """Watches the process and says whether something new may begin. `limit_bytes`: of the control group."""

    def __init__(self, settings: Settings, metrics: Metrics, limit_bytes: int | None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._group_limit_bytes = limit_bytes
        self._lags: deque[float] = deque([0.0] * _LOOKS, _LOOKS)
        self._resident_bytes = 0
        self._levels = {"memory": _CALM, "lag": _CALM}
        self._level = _CALM
        self._running: dict[str, int] = {}
        """Requests by project; none with 0."""
        self._total = 0

    @property
    def running(self) -> int:
        """Requests of all projects."""
        return self._total

    def follow(self, settings: Settings) -> None:
        """Take over a changed configuration."""
        self._settings = settings

    def check(self) -> None:
        """Let a request begin. Raises Overloaded."""
        if self._level == _FULL:
            raise self._refusal("; send the request again.")

    def enter(self, project: str) -> None:
        """Count a request whose project is known; `leave` takes it off again. Raises Overloaded: it was not counted."""
        running = self._running.get(project, 0)
        if self._level != _CALM:
            projects = len(self._running) + (not running)
            if (running + 1) * projects > self._total + 1:
                raise self._refusal(", and this project has its share of what runs; send the request again.")
        self._running[project] = running + 1
        self._total += 1

    def leave(self, project: str) -> None:
        """Count a request no more."""
        self._total -= 1
        running = self._running[project] - 1
        if running:
            self._running[project] = running
        else:
            del self._running[project]

    def note(self, lag_s: float, resident_bytes: int) -> None:
        """Judge the state of the process: how late its event loop was just now, and how much memory it has."""
        settings = self._settings
        self._lags.append(lag_s)
        self._resident_bytes = resident_bytes
        self._levels["lag"] = _level(min(self._lags), settings.fair_lag_s, settings.full_lag_s)
        limit = self._limit_bytes
        share = resident_bytes / limit if limit else 0.0
        self._levels["memory"] = _level(share, settings.fair_memory, settings.full_memory)
        self._level = max(self._levels.values())

    async def watch(self) -> None:
        """Look ten times in a second, until cancelled. Short of memory, give back to the system what is free."""
        loop = asyncio.get_running_loop()
        tidied_at = -_TIDY_S
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._metrics.loop_lag_s = lag_s = max(loop.time() - due, 0.0)
            self.note(lag_s, memory.resident_bytes())
            if self._levels["memory"] != _CALM and time.monotonic() - tidied_at >= _TIDY_S:
                await asyncio.to_thread(memory.tidy)
                tidied_at = time.monotonic()

    def samples(self) -> Iterable[Sample]:
        """Return what Prometheus is told."""
        text = "2: every new request is refused; 1: those of projects beyond their even share; 0: none."
        for reason, level in self._levels.items():
            yield Sample("gauge", "sidegate_shedding", text, {"reason": reason}, level)
        text = "Memory of this process."
        yield Sample("gauge", "sidegate_memory_resident_bytes", text, {}, self._resident_bytes)
        text = "Memory that it may have; 0: no limit is known."
        yield Sample("gauge", "sidegate_memory_limit_bytes", text, {}, self._limit_bytes or 0)

    @property
    def _limit_bytes(self) -> int | None:
        return self._settings.memory_limit_bytes or self._group_limit_bytes

    def _refusal(self, advice: str) -> Overloaded:
        because, code = _REASONS[max(self._levels, key=self._levels.__getitem__)]
        return Overloaded(because + advice, code=code, retry_after_s=_RETRY_AFTER_S)


def _level(value: float, fair: float, full: float) -> int:
    return _FULL if value >= full else _FAIR if value >= fair else _CALM
