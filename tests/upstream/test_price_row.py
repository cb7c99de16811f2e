"""What one row charges: every class once, exact, rounded once."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.schema import PRICE_CLASSES
from proxy.exchange import Usage
from proxy.upstream.price_row import Row

MILLION = 1_000_000
TOKEN_CLASSES = [name for name in PRICE_CLASSES if not name.startswith("per_")]

tokens = st.integers(0, 10**9)
price = st.integers(0, 10**12)
rows = st.builds(
    Row,
    **dict.fromkeys(TOKEN_CLASSES, price),
    per_hour=st.none() | price,
    per_image=st.none() | price,
)
usages = st.builds(
    Usage,
    input_tokens=tokens,
    output_tokens=tokens,
    cached_input_tokens=tokens,
    cache_write_tokens=tokens,
    reasoning_tokens=tokens,
    audio_input_tokens=tokens,
    audio_output_tokens=tokens,
    image_input_tokens=tokens,
    image_output_tokens=tokens,
    audio_seconds=st.floats(0, 10**6),
    images=st.integers(0, 1000),
)


def reference(row: Row, usage: Usage) -> int:
    """The same sum in fractions, token class by token class."""

    def side(total: int, rest_price: int, parts: list[tuple[int, int]]) -> Fraction:
        left, amount = total, Fraction(0)
        for count, part_price in parts:
            amount += Fraction(min(count, left) * part_price, MILLION)
            left -= min(count, left)
        return amount + Fraction(left * rest_price, MILLION)

    exact = side(
        usage.input_tokens,
        row.input,
        [
            (usage.cached_input_tokens, row.cached_input),
            (usage.cache_write_tokens, row.cache_write),
            (usage.audio_input_tokens, row.audio_input),
            (usage.image_input_tokens, row.image_input),
        ],
    )
    exact += side(
        usage.output_tokens,
        row.output,
        [(usage.audio_output_tokens, row.audio_output), (usage.image_output_tokens, row.image_output)],
    )
    exact += Fraction(usage.audio_seconds) * Fraction(row.per_hour or 0, 3600)
    exact += usage.images * Fraction(row.per_image or 0)
    return int(exact + Fraction(1, 2))


@given(rows, usages)
def test_cost_when_any_row_and_usage_then_equals_fractions_rounded_half_up(row: Row, usage: Usage) -> None:
    assert row.cost(usage) == reference(row, usage)


@given(st.builds(Usage, *[st.integers(-(10**20), 10**20)] * 9, audio_seconds=st.floats(), images=st.integers()), rows)
def test_cost_when_counts_are_absurd_then_never_negative(usage: Usage, row: Row) -> None:
    assert row.cost(usage) >= 0


@given(rows, usages, st.sampled_from(["input_tokens", "output_tokens", "images", "audio_seconds"]), tokens)
def test_cost_when_a_total_grows_then_never_falls(row: Row, usage: Usage, name: str, more: int) -> None:
    before = row.cost(usage)
    setattr(usage, name, getattr(usage, name) + more)
    assert row.cost(usage) >= before


@given(price, usages)
def test_cost_when_all_classes_cost_the_same_then_parts_change_nothing(each: int, usage: Usage) -> None:
    row = Row(*[each] * 8, per_hour=None, per_image=None)
    assert row.cost(usage) == Row.from_nanos({"input": each, "output": each}).cost(
        Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    )


@pytest.mark.parametrize(("tokens_used", "nanos"), [(1, 1), (499_999, 0), (500_000, 1), (1_499_999, 1), (1_500_000, 2)])
def test_cost_when_half_a_nano_then_rounded_up(tokens_used: int, nanos: int) -> None:
    row = Row.from_nanos({"input": MILLION if tokens_used == 1 else 1})
    assert row.cost(Usage(input_tokens=tokens_used)) == nanos


@pytest.mark.parametrize("unit", TOKEN_CLASSES)
def test_row_when_class_has_no_price_then_its_total_decides(unit: str) -> None:
    row = Row.from_nanos({"input": 7, "output": 9})
    parent = "output" if "output" in unit else "input"
    assert getattr(row, unit) == getattr(row, parent)


@settings(deadline=None)
@given(rows, tokens, tokens, st.lists(tokens, min_size=6, max_size=6), st.booleans())
def test_highest_prices_when_usage_is_split_in_any_way_then_it_costs_no_more(row, sent, received, parts, media) -> None:
    usage = Usage(sent, received, cached_input_tokens=parts[0], cache_write_tokens=parts[1])
    if media:
        usage.audio_input_tokens, usage.image_input_tokens = parts[2:4]
        usage.audio_output_tokens, usage.image_output_tokens = parts[4:]
    sent_price, received_price = row.highest_prices(media)
    assert row.cost(usage) <= -(-(sent * sent_price + received * received_price) // MILLION)


@given(rows, usages, tokens)
def test_cost_when_the_input_is_long_then_as_another_row_and_within_the_highest_prices(row, usage, above) -> None:
    dearer = row.dearer()
    both = replace(row, long_above=above, long=dearer)
    is_long = usage.input_tokens > above
    assert both.cost(usage) == (dearer if is_long else row).cost(usage)
    assert both.cost(usage, above) == row.cost(usage)
    assert both.highest_prices(True, usage.input_tokens) == (dearer if is_long else row).highest_prices(True)
    assert both.highest_prices(True) == dearer.highest_prices(True)
    assert both.dearer().long == dearer.dearer()
