"""How long one scan may keep the event loop."""

import pytest

from proxy.policy.patience import Patience, TooSlow


def test_check_when_the_time_is_over_then_it_tells(monkeypatch):
    times = iter([100.0, 100.001, 100.004, 100.006])
    monkeypatch.setattr("proxy.policy.patience.time.perf_counter", lambda: next(times))
    patience = Patience(0.005)
    patience.check()
    patience.check()
    with pytest.raises(TooSlow):
        patience.check()
