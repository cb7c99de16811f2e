"""Edges moved to quarters of an hour: what is read and what makes good for it is the range."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.analytics.ranges import to_quarters

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
moments = st.timedeltas(timedelta(0), timedelta(hours=3)).map(lambda after: NOON + after)


@given(edges=st.tuples(moments, moments).filter(lambda edges: edges[0] < edges[1]), now=moments, probe=moments)
def test_moved_range_and_its_pieces_count_every_moment_as_the_range_does(
    edges: tuple[datetime, datetime], now: datetime, probe: datetime
) -> None:
    since, until = edges
    first, last, pieces = to_quarters(since, until, now)
    assert isinstance(first, datetime) and isinstance(last, datetime)
    assert (first - NOON) % QUARTER == (last - NOON) % QUARTER == timedelta(0)
    counted = int(first <= probe < last) + sum(piece.sign for piece in pieces if piece.since <= probe < piece.until)
    assert counted == int(since <= probe < until)
    assert all(min(piece.until, max(now, piece.since)) - piece.since <= QUARTER / 2 for piece in pieces)


@pytest.mark.parametrize("days", [(date(2026, 11, 1), date(2026, 11, 2))])
def test_days_are_not_moved(days: tuple[date, date]) -> None:
    assert to_quarters(*days, NOON) == (*days, [])
