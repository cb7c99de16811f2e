from decimal import Decimal

import pytest

from proxy.analytics.figures import Percentiles, Sums, percentiles


def test_sums_add_up_member_by_member() -> None:
    first, second = Sums(*range(1, 10), Decimal("0.1"), 2, 3000), Sums(*range(9), Decimal("0.2"), 1, 1)
    both = first + second
    assert (both.requests, both.output_tokens, both.cost) == (1, 17, Decimal("0.3"))
    assert (both.timed, both.average_ms, Sums().average_ms) == (3, 1.0, 0.0)
    assert both.tokens == both.input_tokens + both.output_tokens


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, Percentiles()),
        ({8: 1}, Percentiles(1, 2.0, 2.0, 2.0)),
        ({0: 50, 8: 45, 80: 5}, Percentiles(100, 1.0, 2.0, 1024.0)),
        ({80: 1, 0: 1}, Percentiles(2, 1.0, 1024.0, 1024.0)),
        ({-24: 3}, Percentiles(3, 0.125, 0.125, 0.125)),
    ],
)
def test_percentiles_are_by_nearest_rank(counts: dict[int, int], expected: Percentiles) -> None:
    assert percentiles(counts) == expected
