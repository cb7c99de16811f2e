"""Short windows in virtual time: exact counts, exact waits, nothing taken by a refusal."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.quota.limits import ProjectQuota
from proxy.quota.windows import Bucket, Refusal, ShortWindows

NOW = 1_000_000.0
LIMITS = st.integers(1, 100) | st.integers(1, (1 << 31) - 1)
TIMES = st.floats(0, 1e7)


def windows(requests=None, tokens=None, concurrent=None, holders=1):
    made = ShortWindows()
    made.configure(ProjectQuota("lease", 0, requests, tokens, concurrent), holders)
    return made


def bucket(limit, share=None):
    made = Bucket()
    made.configure(limit, limit if share is None else share)
    return made


def admitted(made, tokens, now):
    count = 0
    while made.admit(tokens, now) is None:
        count += 1
    return count


@settings(deadline=None)
@given(st.integers(1, 300), TIMES)
def test_admit_when_all_come_at_once_then_exactly_the_limit(limit, now):
    assert admitted(windows(requests=limit), 0, now) == limit


@settings(deadline=None)
@given(LIMITS, st.lists(st.integers(1, 1 << 31), max_size=20), TIMES)
def test_bucket_when_used_at_one_instant_then_never_more_than_the_limit(limit, wishes, now):
    made, taken = bucket(limit), 0
    for units in wishes:
        if made.wait_s(units, now) == 0:
            made.take(units, now)
            taken += units
        assert made.remaining(now) == limit - taken


@settings(deadline=None)
@given(LIMITS, st.lists(st.tuples(st.integers(1, 100), st.floats(0, 90)), max_size=30), TIMES)
def test_bucket_when_used_over_time_then_never_more_than_a_limit_and_its_refill(limit, steps, start):
    made, taken, now = bucket(limit), 0, start
    for percent, pause_s in steps:
        now += pause_s
        units = max(limit * percent // 100, 1)
        if made.wait_s(units, now) == 0:
            made.take(units, now)
            taken += units
        assert taken <= limit + limit * (now - start) / 60 * (1 + 1e-6) + 1e-6 * limit


@settings(deadline=None)
@given(LIMITS, st.integers(1, 100), st.integers(1, 100), TIMES)
def test_wait_when_waited_for_then_it_was_neither_too_short_nor_too_long(limit, used, wanted, now):
    made = bucket(limit)
    made.take(max(limit * used // 100, 1), now)
    units = max(limit * wanted // 100, 1)
    wait_s = made.wait_s(units, now)
    assert 0 <= wait_s <= 60
    assert made.wait_s(units, now + wait_s) == 0
    if wait_s > 0.001:
        assert made.wait_s(units, now + wait_s * 0.99) > 0


def test_admit_when_a_place_is_free_again_then_the_wait_was_exact():
    made = windows(requests=60)
    assert admitted(made, 0, NOW) == 60
    assert made.admit(0, NOW) == Refusal("requests", 60, 60, 0, 1, 1.0)
    assert made.admit(0, NOW + 0.5) == Refusal("requests", 60, 60, 0, 1, 0.5)
    assert made.admit(0, NOW + 1.0) is None
    assert made.admit(0, NOW + 1.0) is not None


def test_admit_when_several_windows_are_full_then_the_longest_wait_is_told():
    made = windows(requests=60, tokens=60)
    assert made.admit(60, NOW) is None
    assert made.admit(30, NOW) == Refusal("tokens", 60, 60, 0, 30, 30.0)


def test_admit_when_one_window_refuses_then_nothing_is_taken_of_the_others():
    made = windows(requests=10, tokens=100, concurrent=1)
    assert made.admit(100, NOW) is None
    before = made.state(NOW)
    assert made.admit(1, NOW) is not None
    assert made.state(NOW) == before
    made.settle(100, 0, NOW)
    assert made.admit(100, NOW) is None


def test_admit_when_a_request_exceeds_the_limit_then_no_wait_is_named():
    made = windows(tokens=1000)
    assert made.admit(1001, NOW) == Refusal("tokens", 1000, 1000, 1000, 1001, None)
    assert made.admit(1000, NOW) is None


def test_admit_when_a_request_exceeds_the_share_alone_then_a_full_bucket_takes_it_and_is_overdrawn():
    made = windows(tokens=1000, holders=4)
    assert made.admit(10, NOW) is None
    refusal = made.admit(1000, NOW)
    assert refusal is not None and refusal.retry_after_s == pytest.approx(60 * 10 / 250)
    assert made.admit(1000, NOW + 60) is None
    assert made.state(NOW + 60)["tokens"].remaining == 0
    refusal = made.admit(250, NOW + 60)
    assert refusal is not None and refusal.retry_after_s == pytest.approx(240)


def test_admit_when_replicas_share_then_each_gets_its_part_and_at_least_one():
    assert admitted(windows(requests=10, holders=3), 0, NOW) == 3
    assert admitted(windows(requests=2, holders=5), 0, NOW) == 1
    assert admitted(windows(concurrent=2, holders=5), 0, NOW) == 1
    assert admitted(windows(requests=10, holders=0), 0, NOW) == 10
    refused = windows(requests=2, holders=2)
    assert admitted(refused, 0, NOW) == 1
    assert refused.admit(0, NOW) == Refusal("requests", 2, 1, 0, 1, 60.0)


def test_admit_when_too_many_run_then_a_place_is_free_once_one_has_ended():
    made = windows(concurrent=2)
    assert admitted(made, 5, NOW) == 2
    assert made.admit(5, NOW + 3600) == Refusal("concurrent", 2, 2, 0, 1, 1.0)
    made.settle(5, 5, NOW)
    assert admitted(made, 5, NOW) == 1


def test_admit_when_nothing_is_limited_then_everything_passes():
    made = ShortWindows()
    assert all(made.admit(1 << 40, NOW) is None for _ in range(100))
    assert made.state(NOW) == {}


def test_settle_when_less_or_more_was_used_then_the_tokens_are_corrected():
    made = windows(tokens=600)
    assert made.admit(500, NOW) is None
    made.settle(500, 100, NOW)
    assert made.state(NOW)["tokens"].remaining == 500
    assert made.admit(100, NOW) is None
    made.settle(100, 700, NOW)
    assert made.state(NOW)["tokens"].remaining == 0
    refusal = made.admit(1, NOW)
    assert refusal is not None and refusal.retry_after_s == pytest.approx(20.1)


def test_settle_when_the_bucket_is_full_again_then_there_is_no_credit():
    made = windows(tokens=600)
    assert made.admit(600, NOW) is None
    made.settle(600, 0, NOW + 3600)
    assert made.state(NOW + 3600)["tokens"].remaining == 600
    assert admitted(made, 600, NOW + 3600) == 1


def test_settle_when_requests_began_before_the_limits_then_the_count_stays_sound():
    made = windows(tokens=600, concurrent=1)
    made.settle(600, 0, NOW)
    made.settle(600, 0, NOW)
    assert admitted(made, 600, NOW) == 1


def test_configure_when_limits_change_then_the_part_that_is_used_stays():
    made = windows(requests=100, tokens=100)
    assert made.admit(50, NOW) is None
    made.configure(ProjectQuota("lease", 0, None, 1000, 5), 1)
    assert made.state(NOW).keys() == {"tokens"}
    assert made.state(NOW)["tokens"].remaining == 500
    made.configure(ProjectQuota("lease", 0, 7, None, None), 1)
    assert made.state(NOW)["requests"].remaining == 7


def test_state_when_some_is_used_then_rest_and_the_time_until_all_is_back():
    made = windows(requests=60, tokens=6000)
    assert made.admit(600, NOW) is None
    standing = made.state(NOW)
    assert (standing["requests"].limit, standing["requests"].remaining) == (60, 59)
    assert standing["requests"].reset_s == pytest.approx(1.0)
    assert (standing["tokens"].remaining, standing["tokens"].reset_s) == (5400, pytest.approx(6.0))
    later = made.state(NOW + 6)["tokens"]
    assert (later.remaining, later.reset_s) == (6000, pytest.approx(0.0))


def test_is_idle_when_nothing_runs_and_all_is_there_again_then_true():
    made = windows(requests=60)
    assert made.is_idle(NOW)
    assert made.admit(0, NOW) is None
    assert not made.is_idle(NOW + 60)
    made.settle(0, 0, NOW)
    assert not made.is_idle(NOW)
    assert made.is_idle(NOW + 1.1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 120)),
        st.tuples(st.just("settle"), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.integers(0, 30)),
        st.tuples(st.just("configure"), st.integers(1, 5)),
    ),
    max_size=50,
)


@settings(deadline=None)
@given(STEPS)
def test_windows_when_used_in_any_order_then_places_and_rests_stay_within_their_limits(steps):
    policy = ProjectQuota("lease", 0, 30, 100, 4)
    made = ShortWindows()
    made.configure(policy, 1)
    now, running, share = NOW, [], 4
    for step, amount in steps:
        if step == "wait":
            now += amount
        elif step == "configure":
            made.configure(policy, amount)
            share = max(4 // amount, 1)
        elif step == "settle" and running:
            made.settle(running[0], running.pop(0) * amount // 100, now)
        elif step == "admit":
            refusal = made.admit(amount, now)
            if refusal is None:
                running.append(amount)
                assert len(running) <= share
            else:
                assert (refusal.retry_after_s is None) == (amount > 100)
                assert refusal.retry_after_s is None or 0 < refusal.retry_after_s < math.inf
        for standing in made.state(now).values():
            assert 0 <= standing.remaining <= standing.limit
            assert standing.reset_s >= 0
