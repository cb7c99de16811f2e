"""The keys of quotas."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from proxy.config.quota import Quota


def test_quota_when_nothing_is_said_then_the_documented_limits_are_closed_ceilings():
    quota = Quota()
    assert (quota.enabled, quota.default_tokens_daily, quota.default_cost_daily) == (True, 1_000_000, Decimal("10.0"))
    assert quota.on_database_outage == "lease"
    assert quota.default_output_tokens <= quota.assumed_output_tokens
    assert quota.renew_s < quota.idle_s < quota.lease_ttl_s


@pytest.mark.parametrize(
    "policy", ["closed", "lease", "open", "capped:0", "capped:5", "capped:5.00", "capped:999999.123456789"]
)
def test_on_database_outage_when_it_is_a_policy_then_it_is_taken(policy):
    assert Quota(on_database_outage=policy).on_database_outage == policy


@pytest.mark.parametrize(
    "policy",
    (
        *("", "Closed", "capped", "capped:", "capped:-1", "capped:.5", "capped:5.", "capped:1e3", "capped:1000000"),
        *("capped:1.0123456789", "capped:nan", "capped:5 ", "lease\n", "open:5", "capped:٥"),
    ),
    ids=ascii,
)
def test_on_database_outage_when_it_is_something_else_then_the_error_names_the_choices(policy):
    with pytest.raises(ValidationError, match="must be closed, lease, open or capped:<dollars>"):
        Quota(on_database_outage=policy)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_tokens_daily", -1),
        ("default_tokens_daily", 10**15 + 1),
        ("default_cost_daily", "-0.01"),
        ("default_cost_daily", "NaN"),
        ("cold_start_share", 1.1),
        ("cold_start_share", -0.1),
        ("assumed_output_tokens", 0),
        ("default_output_tokens", 0),
        ("unseen_input_tokens", -1),
        ("at_limit", "cut"),
        ("lease_share", 0),
        ("lease_share", 0.6),
        ("lease_ttl_s", 0),
        ("max_wait_ms", -1),
        ("max_waiting", 0),
        ("max_callers", 0),
        ("limit", 5),
    ],
)
def test_quota_when_a_value_is_out_of_range_or_unknown_then_its_key_is_named(key, value):
    with pytest.raises(ValidationError) as caught:
        Quota(**{key: value})
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_tokens_daily", 0),
        ("default_cost_daily", 0),
        ("unseen_input_tokens", 0),
        ("cold_start_share", 0),
        ("max_wait_ms", 0),
        ("lease_share", 0.5),
    ],
)
def test_quota_when_a_value_stands_at_the_edge_then_it_is_taken(key, value):
    assert getattr(Quota(**{key: value}), key) == value
