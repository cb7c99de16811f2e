import pytest
from pydantic import ValidationError

from proxy.config.shedding import Shedding


def test_defaults_when_read_then_the_fair_degree_comes_before_the_full_one() -> None:
    settings = Shedding()
    assert settings.fair_lag_s < settings.full_lag_s
    assert settings.fair_memory < settings.full_memory < 1


@pytest.mark.parametrize("wrong", [{"fair_lag_s": 0}, {"full_memory": 0}, {"memory_limit_bytes": -1}, {"memory": 1}])
def test_settings_when_out_of_range_or_unknown_then_they_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Shedding.model_validate(wrong)
