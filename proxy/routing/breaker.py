"""A circuit breaker: named states, fed with outcomes that somebody else has classified. It never sees HTTP.

    closed --so many failures in a row, or their share in a window--> open
    open --its pause is over--> half_open --one probe--> closed
                                              `--failed--> open, for twice as long

One probe at a time: whoever asks while it runs is told no. A probe that ends without an outcome (its client left) gives
its place to the next. Pure: the time is passed in.

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
    """State of one place. `draw`: a number in [0, 1), so that replicas do not probe in step."""

    def __init__(self, settings: Settings, draw: Callable[[], float]) -> None:
        self.settings = settings
        self._draw = draw
        self._outcomes: deque[tuple[float, float]] = deque(maxlen=_MOST_OUTCOMES)
        """Time and weight of failure (0: a success) of the latest outcomes."""
        self._in_a_row = 0.0
        self._opened = 0
        """Times it opened since it was last closed; 0: closed."""
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
        """Note an attempt that begins; return whether it is the probe."""
        if self._probing or self.state(now) != "half_open":
            return False
        self._probing = True
        return True

    def succeed(self, now: float, *, is_probe: bool = False) -> None:
        """Note that the place works. While it is open only the probe tells; others began before it opened."""
        if self._opened and not is_probe:
            return
        self._opened, self._probing = 0, False
        self._in_a_row = 0.0
        self._outcomes.append((now, 0.0))

    def fail(self, now: float, weight: float = 1.0, *, is_probe: bool = False) -> None:
        """Note that it does not. `weight`: below 1 for a failure that shows less. `is_probe`: as in `succeed`."""
        if self._opened:
            if is_probe:
                self._open(now)
            return
        self._outcomes.append((now, weight))
        self._in_a_row += weight
        if self._in_a_row >= self.settings.failures or self._share_is_high(now):
            self._open(now)

    def abandon(self) -> None:
        """Note a probe that ended without telling anything."""
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
