"""Rules that every leaf of the tree keeps; how it is rendered is tested with `openai.error_body`."""

import inspect
from http import HTTPStatus

import pytest

from proxy import errors
from proxy.errors import ProxyError

LEAVES = [
    leaf
    for _, leaf in inspect.getmembers(errors, inspect.isclass)
    if issubclass(leaf, ProxyError) and leaf is not ProxyError
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_leaf_when_made_with_a_message_alone_then_status_type_and_code_are_its_own(leaf):
    error = leaf("what went wrong")
    assert (str(error), error.message) == ("what went wrong", "what went wrong")
    assert (error.http_status, error.code) == (leaf.status, leaf.default_code)
    assert (error.param, error.retry_after_s) == (None, None)
    assert error.http_status == 499 or HTTPStatus(error.http_status).phrase
    assert error.http_status < 500 or error.type in ("server_error", "service_unavailable_error")


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_leaf_when_it_is_the_clients_fault_then_its_status_says_so(leaf):
    assert (leaf.status < 500) is (leaf.source in ("client", "policy"))


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_leaf_when_trying_again_is_safe_then_its_status_says_that_it_is_for_now(leaf):
    assert not leaf.retryable or leaf.status in (429, 503)


def test_error_when_narrowed_then_the_class_keeps_its_own():
    error = errors.InvalidRequest("m", code="c", param="p", status=413, retry_after_s=2.0)
    assert (error.http_status, error.code, error.param, error.retry_after_s) == (413, "c", "p", 2.0)
    assert errors.InvalidRequest("m").http_status == 400


def test_upstream_failure_when_nothing_is_said_then_the_request_may_have_been_sent():
    assert errors.UpstreamFailed("m").sent
    assert not errors.UpstreamTimeout("m", code="upstream_connect_timeout", sent=False).sent


def test_quota_leaves_when_limits_are_told_apart_then_only_the_daily_one_is_insufficient_quota():
    daily, short = errors.QuotaExceeded("m"), errors.RateLimited("m")
    assert (daily.type, daily.code, daily.retryable) == ("insufficient_quota", "insufficient_quota", False)
    assert (short.type, short.code, short.retryable) == ("rate_limit_exceeded", "rate_limit_exceeded", True)
    assert isinstance(short, errors.QuotaExceeded) and not isinstance(errors.QuotaUnavailable("m"), type(daily))


def test_quota_leaves_when_details_are_given_then_they_are_kept_and_else_empty():
    error = errors.RateLimited("m", details={"limit": 1}, reset_at="2027-01-01T00:00:00Z", retry_after_s=1.5)
    assert (error.details, error.reset_at, error.retry_after_s) == ({"limit": 1}, "2027-01-01T00:00:00Z", 1.5)
    assert (errors.QuotaExceeded("m").details, errors.QuotaExceeded("m").reset_at) == ({}, None)


def test_insufficient_quota_when_any_other_error_is_made_then_nothing_of_it_says_so():
    words = [word for leaf in LEAVES if leaf is not errors.QuotaExceeded for word in (leaf.type, leaf.default_code)]
    assert "insufficient_quota" not in words
