"""The section `cache`."""

import pytest
from pydantic import ValidationError

from proxy.config.cache import Cache
from proxy.config.changes import is_fixed


def test_cache_when_nothing_is_said_then_an_entry_fits_many_times():
    assert 16 * Cache().entry_bytes <= Cache().memory_bytes


@pytest.mark.parametrize("name", ["memory_bytes", "entry_bytes", "ttl_s"])
def test_cache_when_a_bound_is_not_positive_then_it_is_refused(name):
    with pytest.raises(ValidationError):
        Cache(**{name: 0})


def test_cache_when_its_keys_change_then_only_a_restart_takes_them_over():
    assert is_fixed("cache.ttl_s")
