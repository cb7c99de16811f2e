"""A circuit breaker: named states, driven by outcomes that the caller has classified. It knows nothing of HTTP.

    closed --consecutive failures, or their share in a window--> open
    open --its pause is over--> half_open --one probe--> closed
                                              `--failed--> open, for twice as long

One probe at a time: further attempts are refused while it runs. If a probe ends without an outcome (its client
disconnected), the next attempt becomes the probe. Pure: the time is passed in.

Source: linkerd2-proxy, consecutive failures; M. Nygard, "Release It!", "Circuit Breaker".
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

from proxy.config.routing import Breaker as Settings

State = Literal["closed", "open", "half_open"]
_MOST_OUTCOMES = 512
_JITTER = 0.2


class Breaker:
    """State of one credential. `draw`: a number in [0, 1), so that replicas do not probe in step."""

    def __init__(self, settings: Settings, draw: Callable[[], float]) -> None:
        self.settings = settings
        self._draw = draw
        self._outcomes: deque[tuple[float, float]] = deque(maxlen=_MOST_OUTCOMES)
        """Time and failure weight (0: a success) of the latest outcomes."""
        self._in_a_row = 0.0
        self._opened = 0
        """How often it opened since it was last closed; 0: closed."""
        self._until = 0.0
        self._probing = False

    def state(self, now: float) -> State:
        """Return the state at `now`."""
        if not self._opened:
            return "closed"
        return "open" if now < self._until else "half_open"

    def is_eligible(self, now: float) -> bool:
        """Tell whether an attempt may begin."""
        return not self._opened or (now >= self._until and not self._probing)

    @property
    def eligible_at(self) -> float:
        """When the pause ends; meaningless while closed."""
        return self._until

    def begin(self, now: float) -> bool:
        """Record the start of an attempt; return whether it is the probe."""
        if self._probing or self.state(now) != "half_open":
            return False
        self._probing = True
        return True

    def succeed(self, now: float, *, is_probe: bool = False) -> None:
        """Record a success. While open, only the probe's outcome counts; the other attempts began before."""
        if self._opened and not is_probe:
            return
        self._opened, self._probing = 0, False
        self._in_a_row = 0.0
        self._outcomes.append((now, 0.0))

    def fail(self, now: float, weight: float = 1.0, *, is_probe: bool = False) -> None:
        """Record a failure. `weight`: below 1 for one that proves less. `is_probe`: as in `succeed`."""
        if self._opened:
            if is_probe:
                self._open(now)
            return
        self._outcomes.append((now, weight))
        self._in_a_row += weight
        if self._in_a_row >= self.settings.failures or self._share_is_high(now):
            self._open(now)

    def abandon(self) -> None:
        """Record a probe that ended without an outcome."""
        self._probing = False

    def _open(self, now: float) -> None:
        settings = self.settings
        pause_s = min(settings.open_s * 2**self._opened, settings.open_max_s)
        self._until = now + pause_s * (1 - _JITTER + 2 * _JITTER * self._draw())
        self._opened = min(self._opened + 1, 32)
        self._probing = False
        self._in_a_row = 0.0
        self._outcomes.clear()

    def _share_is_high(self, now: float) -> bool:
        settings, outcomes = self.settings, self._outcomes
        while outcomes and outcomes[0][0] < now - settings.window_s:
            outcomes.popleft()
        failed = sum(weight for _, weight in outcomes)
        return len(outcomes) >= settings.window_attempts and failed >= settings.failure_share * len(outcomes)
