"""The age of the oldest record: never too young, and never older than by one tick."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.journal.age import Ages
from proxy.journal.segment import START, Position

PATIENT = settings(deadline=None)
"""A busy machine is no failure."""


@PATIENT
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3)), min_size=1, max_size=60), st.data())
def test_age_when_records_come_between_ticks_then_it_is_right_within_a_tick(
    ticks: list[tuple[float, int]], data: st.DataObject
) -> None:
    ages = Ages()
    ages.note(START, 0.0)
    now, spans = 0.0, []
    for pause, records in ticks:
        before, now = now, now + pause
        spans += [(before, now)] * records
        ages.note(Position(0, len(spans)), now)
    for offset in sorted(data.draw(st.sets(st.integers(0, max(len(spans) - 1, 0))))):
        earliest, latest = spans[offset] if spans else (now, now)
        assert now - latest <= ages.oldest_s(Position(0, offset), now) <= now - earliest


def test_age_when_nothing_came_for_long_then_the_next_record_is_young() -> None:
    ages = Ages()
    for second in range(100):
        ages.note(Position(1, 7), float(second))

    assert ages.oldest_s(Position(1, 7), 99.5) == 0.5


def test_age_when_an_outage_lasts_for_hours_then_memory_is_bounded_and_the_oldest_is_kept() -> None:
    ages = Ages()
    for second in range(20_000):
        ages.note(Position(1, second), float(second * 2))

    assert len(ages._marks) <= 1024
    assert ages.oldest_s(START, 40_000.0) == 40_000.0
    late = ages.oldest_s(Position(1, 19_990), 40_000.0)
    assert 20.0 <= late <= 400.0


def test_age_when_nothing_came_then_it_is_zero() -> None:
    assert Ages().oldest_s(START, 5.0) == 0.0
