"""The callers of one replica are bounded, whatever names clients send."""

from collections import Counter

import pytest

from proxy.config.quota import Quota
from proxy.quota.callers import Callers

RULES = '{"requestsPerMinute": 5}'
MOST = 100


def full(**settings: object) -> tuple[Callers, list[str]]:
    callers = Callers(Quota(max_callers=MOST, **settings), lambda _project: RULES)
    gone: list[str] = []
    callers.forget = lambda caller: gone.append(caller.key[0])
    return callers, gone


def use(callers: Callers, user: str, now: float) -> bool:
    caller = callers.get(user, "p", now)
    if caller is None:
        return False
    assert caller.windows is not None
    if caller.windows.admit(1, now) is None:
        caller.windows.settle(1, 1, now)
        return True
    return False


def test_callers_when_more_come_than_are_kept_while_all_have_open_windows_then_no_limit_is_forgotten() -> None:
    callers, gone = full()
    served: Counter[str] = Counter()
    for number in range(20 * MOST):
        user = f"u{number % (3 * MOST)}"
        served[user] += use(callers, user, 10.0 + number / 1000)
    assert max(served.values()) == 5, "requestsPerMinute"
    assert len(callers) <= MOST + 4
    assert gone == []


def test_callers_when_the_windows_of_some_are_over_then_those_go() -> None:
    callers, gone = full()
    for number in range(MOST):
        use(callers, f"u{number}", 10.0 if number == 7 else 900.0)
    assert callers.get("new", "p", 901.0) is not None
    assert gone == ["u7"]


def test_callers_when_nothing_must_be_remembered_then_the_oldest_go() -> None:
    callers, gone = full()
    for number in range(3 * MOST):
        assert callers.get(f"u{number}", "p", 10.0) is not None
    assert len(callers) == MOST
    assert gone == [f"u{number}" for number in range(2 * MOST)]


@pytest.mark.parametrize(("rule", "is_kept"), [("capped:1", True), ("lease", True), ("open", False)])
def test_callers_when_one_was_served_without_a_lease_then_it_is_kept_where_that_is_bounded(
    rule: str, is_kept: bool
) -> None:
    callers, gone = full(on_database_outage=rule)
    caller = callers.get("u", "p", 1.0)
    assert caller is not None
    caller.unleased_nanos = 5
    for number in range(2 * MOST):
        callers.get(f"new{number}", "p", 2.0)
    assert ("u" not in gone) is is_kept


def test_callers_when_the_oldest_have_running_requests_then_the_next_go_and_those_stay() -> None:
    callers, _ = full()
    for number in range(MOST):
        callers.get(f"u{number}", "p", 1.0)
    running = [callers.get(f"u{number}", "p", 2.0) for number in range(80)]
    for caller in running:
        assert caller is not None
        caller.waiters.append(object())
    for number in range(80, MOST):
        callers.get(f"u{number}", "p", 3.0)
    for number in range(600):
        callers.get(f"new{number}", "p", 4.0)
    assert len(callers) <= MOST + 4, "a few more for a moment, while all that are looked at run"
    assert all(caller is not None and callers.known(*caller.key) is caller for caller in running)
