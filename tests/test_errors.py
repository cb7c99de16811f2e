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
