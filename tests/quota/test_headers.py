"""Triples stay whole, whatever a provider sends."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.quota.headers import Standing, dollars, duration, merge, render, render_day, tightest

OURS = render(Standing(60, 10, 50.0), Standing(1000, 400, 36.0), Standing(10_000_000_000, 9_999_875_000, 3723.0))
OTHER = ((b"Date", b"now"), (b"X-RateLimit-Limit-Images", b"5"), (b"date", b"again"))


def triple(dimension, limit, remaining, reset, prefix=b"X-RateLimit-"):
    parts = ((b"Limit-", limit), (b"Remaining-", remaining), (b"Reset-", reset))
    return tuple((prefix + part + dimension, value) for part, value in parts if value is not None)


def told(headers, dimension):
    """Return the values of each part of a dimension, in the order limit, remaining, reset."""
    lowered = [(name.lower(), value) for name, value in headers]
    names = [b"x-ratelimit-" + part + b"-" + dimension for part in (b"limit", b"remaining", b"reset")]
    return [[value for name, value in lowered if name == wanted] for wanted in names]


def test_render_when_all_dimensions_are_limited_then_nine_fields():
    assert OURS == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"10"),
        (b"x-ratelimit-reset-requests", b"50s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"400"),
        (b"x-ratelimit-reset-tokens", b"36s"),
        (b"x-ratelimit-limit-cost", b"10"),
        (b"x-ratelimit-remaining-cost", b"9.999875"),
        (b"x-ratelimit-reset-cost", b"1h2m3s"),
    ]


def test_render_when_a_dimension_has_no_limit_then_nothing_is_said_of_it():
    assert render(None, None, None) == []
    assert [name for name, _ in render(None, Standing(1, -5, 0.0), None)] == [name for name, _ in OURS[3:6]]
    assert render(None, Standing(1, -5, 0.0), None)[1][1] == b"0"


@given(st.lists(st.integers(-(10**12), 10**15), min_size=4, max_size=4), st.floats(-1, 90_000))
def test_render_day_when_only_the_day_is_limited_then_it_is_as_from_render(numbers, reset_s):
    tokens, nanos = numbers[:2], numbers[2:]
    rendered = render(None, Standing(*tokens, reset_s), Standing(*nanos, reset_s))
    assert list(render_day(tuple(tokens), tuple(nanos), reset_s)) == rendered


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.0001, "1ms"),
        (0.017, "17ms"),
        (0.999, "999ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.001, "2s"),
        (59.5, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3723, "1h2m3s"),
        (86_399.2, "24h0m0s"),
    ],
)
def test_duration_of_known_times(seconds, text):
    assert duration(seconds) == text


@settings(deadline=None)
@given(st.floats(0, 1e6))
def test_duration_is_never_too_short_nor_a_second_too_long(seconds):
    text = duration(seconds)
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    read = sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", text))
    assert seconds - 1e-9 <= read < seconds + 1


@pytest.mark.parametrize(
    ("nanos", "text"),
    [(0, "0"), (1, "0.000000001"), (10**10, "10"), (1_500_000_000, "1.5"), (10**15 + 1, "1000000.000000001")],
)
def test_dollars_of_known_amounts(nanos, text):
    assert dollars(nanos) == text


def test_tightest_when_several_limits_hold_then_the_least_rest_and_of_equals_the_longer():
    day, minute, empty = Standing(100, 5, 3600.0), Standing(60, 5, 10.0), Standing(60, 0, 1.0)
    assert tightest(minute, None, day) is day
    assert tightest(day, minute, empty) is empty
    assert tightest(None, None) is None


def test_merge_when_the_provider_says_nothing_then_ours_are_added():
    assert list(merge(OTHER, OURS)) == [*OTHER, *OURS]


def test_merge_when_nothing_changes_then_nothing_is_copied():
    assert merge(OTHER, ()) is OTHER
    tighter = (*OTHER, *triple(b"Tokens", b"500", b"400", b"1s"))
    assert merge(tighter, OURS[3:6]) is tighter


def test_merge_when_each_is_tighter_in_one_dimension_then_whole_triples_and_the_rest_as_it_was():
    theirs = (*triple(b"requests", b"500", b"11", b"1s"), *OTHER, *triple(b"tokens", b"150000", b"399", b"6m0s"))
    assert list(merge(theirs, OURS)) == [*theirs[3:], *OURS[:3], *OURS[6:]]


@pytest.mark.parametrize(
    "remaining", [None, b"", b"-1", b"1.5", b"many", b"0x1", b"1_0", b" 1", b"9" * 400, "\u0661".encode()], ids=repr
)
def test_merge_when_the_providers_rest_is_not_readable_then_ours(remaining):
    theirs = triple(b"requests", b"500", remaining, b"1s")
    assert list(merge((*theirs, *OTHER), OURS)) == [*OTHER, *OURS]


def test_merge_when_the_provider_says_it_twice_or_its_limit_is_garbage_then_ours():
    twice = (*triple(b"requests", b"500", b"1", b"1s"), (b"x-ratelimit-remaining-requests", b"2"))
    assert list(merge(twice, OURS)) == OURS
    assert list(merge(triple(b"requests", b"none", b"1", b"1s"), OURS)) == OURS


def test_merge_when_the_provider_names_its_rest_alone_then_it_is_not_mixed_with_ours():
    alone = triple(b"requests", None, b"1", None)
    assert list(merge(alone, OURS)) == [*alone, *OURS[3:]]


COUNTS = st.none() | st.integers(0, 10**20).map(lambda number: b"%d" % number) | st.binary(max_size=3)
TRIPLES = st.builds(triple, st.sampled_from([b"requests", b"Tokens"]), COUNTS, COUNTS, st.none() | st.just(b"1s"))


@settings(deadline=None)
@given(st.lists(TRIPLES, max_size=3), st.sets(st.sampled_from([0, 3, 6])))
def test_merge_never_mixes_a_triple_and_keeps_all_else(triples, chosen):
    theirs = tuple(field for fields in triples for field in fields) + OTHER
    ours = [field for start in sorted(chosen) for field in OURS[start : start + 3]]
    merged = merge(theirs, ours)
    for dimension in (b"requests", b"tokens", b"cost"):
        assert told(merged, dimension) in (told(theirs, dimension), told(ours, dimension))
    assert [field for field in merged if field in OTHER] == list(OTHER)
