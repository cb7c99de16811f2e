import pytest
from pydantic import ValidationError

from proxy.config.shedding import Shedding


def test_defaults_when_read_then_each_degree_comes_before_the_next() -> None:
    its = Shedding()
    lags = [its.content_lag_s, its.fair_lag_s, its.full_lag_s, its.closed_lag_s]
    shares = [its.content_memory, its.fair_memory, its.full_memory, its.closed_memory, its.reset_memory, 1]
    assert lags == sorted(set(lags))
    assert shares == sorted(set(shares))


@pytest.mark.parametrize(
    "wrong",
    [{"fair_lag_s": 0}, {"full_memory": 0}, {"memory_limit_bytes": -1}, {"critical_share": 1.1}, {"memory": 1}],
    ids=str,
)
def test_settings_when_out_of_range_or_unknown_then_they_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Shedding.model_validate(wrong)
