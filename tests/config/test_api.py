"""The section `api`."""

import pytest
from pydantic import ValidationError

from proxy.config.api import Api
from proxy.config.changes import is_fixed


def test_api_when_nothing_is_said_then_an_answer_lives_no_longer_than_a_trace_takes_to_be_seen():
    assert Api().cache_s <= 1 and Api(cache_s=0).cache_s == 0


@pytest.mark.parametrize("wrong", [{"cache_s": 61}, {"cache_s": -1}, {"cache_entries": 0}, {"cache_bytes": 0}], ids=str)
def test_api_when_a_bound_is_out_of_range_then_it_is_refused(wrong):
    with pytest.raises(ValidationError):
        Api(**wrong)


def test_api_when_its_keys_change_then_they_are_taken_over():
    assert not is_fixed("api.cache_s")
