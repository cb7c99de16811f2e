"""What a refused caller reads, and what its SDK will make of it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import QuotaExceeded, RateLimited
from proxy.nouns.holds import Bound
from proxy.openai.error_body import render
from proxy.quota import refusals
from proxy.quota.headers import NANOS
from proxy.quota.lease import Account, Lease
from proxy.quota.ledger import Balance
from proxy.quota.windows import Refusal

RESET = datetime(2027, 3, 15, 0, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
NOW = datetime(2027, 3, 14, 12, 0, 0, 250_000, tzinfo=UTC)


def balance(**changes):
    figures = {
        "window": 3, "reset_at": RESET, "window_s": 3600.4, "max_tokens": 1000, "max_nanos": 10 * NANOS,
        "settled_tokens": 600, "settled_nanos": NANOS, "available_tokens": 50, "available_nanos": 5 * NANOS,
        "elsewhere_tokens": 100, "elsewhere_nanos": NANOS, "holders": 2, "starved": False, "project_quota": None,
    }  # fmt: skip
    return Balance(**figures | changes)


def account():
    """30 tokens and a dollar spare, 20 tokens and half a dollar reserved."""
    return Account("u", "p", [Lease("a", 3, 100.0, 30, NANOS, 20, NANOS // 2, 1)])


def bound(output=400, nanos=0):
    return Bound(0, nanos, output, 0, output, True, True)


def test_daily_when_tokens_are_short_then_all_of_the_limit_is_accounted_for():
    error = refusals.daily(bound(), balance(), account(), 0.0)
    assert error.message == (
        "Daily token limit reached: 800 of 1,000 tokens are used, 120 reserved by requests that still run, 80 left; "
        "this request may use up to 400. The limit resets at 2027-03-14T18:30:00Z. The request was not sent to the "
        "provider, and nothing was charged for it."
    )
    assert error.details == {
        "reason": "tokens", "window": "day", "limit": 1000, "used": 800, "reserved": 120, "remaining": 80,
        "requested": 400,
    }  # fmt: skip
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert (error.reset_at, error.retry_after_s) == ("2027-03-14T18:30:00Z", 3600.4)


def test_daily_when_money_is_short_then_dollars():
    error = refusals.daily(bound(0, 7 * NANOS + 1), balance(), account(), 0.0)
    assert error.details == {
        "reason": "cost", "window": "day", "limit": 10.0, "used": 2.5, "reserved": 1.5, "remaining": 6.0,
        "requested": 7.000000001,
    }  # fmt: skip
    assert "$2.5 of $10 are used" in error.message and "up to $7.000000001." in error.message


def test_daily_when_the_request_exceeds_the_whole_limit_then_what_helps_is_said():
    error = refusals.daily(bound(1001), balance(), account(), 0.0)
    assert "more than the whole limit: lower its maximum output" in error.message


def test_daily_when_both_are_short_then_tokens_and_when_neither_then_tokens():
    for wanted in (bound(400, 9 * NANOS), bound(1)):
        assert refusals.daily(wanted, balance(), account(), 0.0).details["reason"] == "tokens"


def test_daily_when_the_limit_was_lowered_then_nothing_is_left_and_used_is_what_was_settled():
    details = refusals.daily(bound(), balance(max_tokens=300, available_tokens=-400), Account("u", "p"), 0.0).details
    assert (details["used"], details["remaining"], details["limit"]) == (600, 0, 300)


def test_daily_when_postgresql_never_answered_then_no_figures():
    error = refusals.daily(bound(), None, account(), 0.0)
    assert (error.code, error.details, error.reset_at) == ("insufficient_quota", {}, None)


def test_daily_when_rendered_then_no_sdk_tries_again():
    status, headers, _ = render(refusals.daily(bound(), balance(window_s=30.2), account(), 0.0))
    assert status == 429
    assert {(b"Retry-After", b"31"), (b"x-should-retry", b"false")} <= set(headers)


def test_cut_when_an_answer_ran_then_it_is_not_said_that_nothing_was_charged():
    refused = refusals.daily(bound(), balance(), account(), 0.0)
    error = refusals.cut(refused)
    assert type(error) is QuotaExceeded
    assert "nothing was charged" not in error.message and "what was generated before is charged" in error.message
    assert (error.details, error.reset_at, error.code) == (refused.details, refused.reset_at, "insufficient_quota")
    assert type(refusals.cut(refusals.crowded())) is RateLimited


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal("requests", 60, 60, 0, 1, 1.2), "60 requests per minute for this user and project, 0 left."),
        (Refusal("requests", 60, 60, 0, 1, 1.2), "Try again in 2s."),
        (Refusal("tokens", 1000, 500, 20, 70, 0.017), "1,000 tokens per minute for this user and project (500 of"),
        (Refusal("tokens", 1000, 500, 20, 70, 0.017), "of them on this replica), 20 left. Try again in 17ms."),
        (Refusal("concurrent", 8, 8, 0, 1, 1.0), "8 requests at the same time for this user and project, 0 left."),
    ],
    ids=["requests", "wait", "tokens", "share", "concurrent"],
)
def test_short_when_a_window_is_full_then_the_wait_is_named(refusal, text):
    error = refusals.short(refusal, NOW)
    assert text in error.message and "nothing was charged" in error.message
    assert (error.type, error.code, error.retryable) == ("rate_limit_exceeded", "rate_limit_exceeded", True)
    assert error.retry_after_s == refusal.retry_after_s
    assert error.details["reason"] == refusal.dimension
    assert error.details["used"] + error.details["remaining"] == error.details["replicaLimit"]
    assert (b"x-should-retry", b"false") not in render(error)[1]


def test_short_when_it_resets_then_the_time_is_rounded_up_to_a_millisecond():
    assert refusals.short(Refusal("requests", 60, 60, 0, 1, 1.0001), NOW).reset_at == "2027-03-14T12:00:01.251Z"
    assert refusals.short(Refusal("requests", 60, 60, 0, 1, 0.75), NOW).reset_at == "2027-03-14T12:00:01Z"


def test_short_when_the_request_exceeds_the_limit_then_waiting_is_said_to_be_in_vain():
    error = refusals.short(Refusal("tokens", 1000, 1000, 1000, 1200, None), NOW)
    assert "more than the whole limit of 1,000 tokens per minute" in error.message
    assert (error.retry_after_s, error.reset_at) == (None, None)
    assert (b"x-should-retry", b"false") in render(error)[1]


@pytest.mark.parametrize(
    "error",
    [refusals.crowded(), refusals.full(10_000), refusals.unavailable()],
    ids=["crowded", "full", "unavailable"],
)
def test_passing_states_when_refused_then_never_insufficient_quota_and_a_short_wait(error):
    status, headers, body = render(error)
    assert status in (429, 503)
    assert b"insufficient_quota" not in body
    assert 0 < error.retry_after_s <= 60
    assert b"x-should-retry" not in dict(headers)


AMOUNTS = st.integers(0, 10**15 - 1)


@settings(deadline=None)
@given(AMOUNTS, AMOUNTS)
def test_daily_when_costs_are_rendered_then_no_digit_is_lost(limit, wanted):
    figures = {"max_nanos": limit, "settled_nanos": 0, "available_nanos": limit, "elsewhere_nanos": 0}
    error = refusals.daily(bound(0, wanted + limit), balance(**figures), Account("u", "p"), 0.0)
    read = json.loads(render(error)[2], parse_float=Decimal)["error"]["details"]
    if read["reason"] == "cost":
        assert read["limit"] * NANOS == read["remaining"] * NANOS == limit


def test_held_when_running_requests_hold_the_rest_then_trying_again_soon_is_said():
    error = refusals.held(bound(500), balance(), account(), 0.0)
    assert (error.type, error.code, error.retryable) == ("rate_limit_exceeded", "rate_limit_exceeded", True)
    assert (error.details["reason"], error.details["limitedBy"], error.details["window"]) == (
        "reserved",
        "tokens",
        "day",
    )
    assert error.retry_after_s == 5.0
    assert "Daily token limit reserved: " in error.message and "Try again in 5s." in error.message
    assert (b"x-should-retry", b"false") not in render(error)[1]
