"""The callers of one replica are bounded, whatever names clients send."""

from proxy.config.quota import Quota
from proxy.quota.callers import Callers

RULES = '{"requestsPerMinute": 5}'
MOST = 100


def full(**settings: object) -> tuple[Callers, list[str]]:
    callers = Callers(Quota(max_callers=MOST, **settings), lambda _project: RULES)
    gone: list[str] = []
    callers.forget = lambda caller: gone.append(caller.key[0])
    return callers, gone


def use(callers: Callers, user: str, now: float) -> None:
    caller = callers.get(user, "p", now)
    assert caller.windows is not None
    assert caller.windows.admit(1, now) is None
    caller.windows.settle(1, 1, now)


def test_callers_when_more_come_within_a_minute_than_are_kept_then_the_oldest_go() -> None:
    callers, gone = full()
    for number in range(3 * MOST):
        use(callers, f"u{number}", 10.0 + number / 1000)
    assert len(callers) == MOST
    assert gone == [f"u{number}" for number in range(2 * MOST)]


def test_callers_when_the_windows_of_some_are_over_then_those_go_first() -> None:
    callers, gone = full()
    for number in range(MOST):
        use(callers, f"u{number}", 10.0 if number == 7 else 900.0)
    callers.get("new", "p", 901.0)
    assert gone == ["u7"]


def test_callers_when_the_oldest_have_running_requests_then_the_next_go_and_those_stay() -> None:
    callers, _ = full()
    for number in range(MOST):
        callers.get(f"u{number}", "p", 1.0)
    running = [callers.get(f"u{number}", "p", 2.0) for number in range(80)]
    for caller in running:
        caller.waiters.append(object())
    for number in range(80, MOST):
        callers.get(f"u{number}", "p", 3.0)
    for number in range(600):
        callers.get(f"new{number}", "p", 4.0)
    assert len(callers) <= MOST + 2, "a few more for a moment, while all that are looked at run"
    assert all(callers.known(*caller.key) is caller for caller in running)
