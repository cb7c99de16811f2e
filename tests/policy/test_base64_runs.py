"""Runs of base64 are seen wherever they stand, those across two pieces of a large text included."""

import base64
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.base64_runs import are_absent, ends_in_run, is_mostly_runs, runs

RUN = b"Ab9+/_-Z" * 5
MIXED = base64.b64encode(bytes(random.Random("mixed").randbytes(300)))


@pytest.mark.parametrize(
    ("data", "holds", "ends"),
    [
        (RUN, True, True),
        (b"so: " + RUN, True, True),
        (RUN + b" ", True, False),
        (RUN[1:], False, False),
        (RUN[:20] + b" " + RUN[:39], False, False),
        (RUN[:20] + b"\n" + RUN[:39], False, False),
        ("键".encode() * 40, False, False),
        (b"", False, False),
    ],
    ids=["run", "at the end", "before the end", "too short", "spaced", "lines", "other letters", "empty"],
)
def test_run_is_seen(data: bytes, holds: bool, ends: bool) -> None:
    assert bool(list(runs(data))) is holds
    assert ends_in_run(data) is ends
    assert are_absent(data) is not holds


def test_run_in_a_large_text_is_never_said_to_be_absent() -> None:
    assert not are_absent(b" " * (1 << 18) + RUN)


@pytest.mark.parametrize("at", [0, 1, 39, 40])
def test_run_across_two_pieces_of_a_large_text_is_seen(at: int) -> None:
    before = (1 << 18) - at
    assert list(runs(b" " * before + RUN + b" ")) == [(before, before + 40)]


@pytest.mark.parametrize("size", [40, 1 << 18, (1 << 18) + 1, 3 << 18])
@pytest.mark.parametrize("before", [0, 1, (1 << 18) - 40, (1 << 18) - 39, (1 << 18) - 1, 1 << 18])
def test_runs_of_any_length_are_seen_from_end_to_end(before: int, size: int) -> None:
    data = b"." * before + b"a" * size + b". " + RUN
    assert list(runs(data)) == [(before, before + size), (before + size + 2, before + size + 42)]
    assert list(runs(data[: before + size])) == [(before, before + size)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([RUN, RUN[:39], RUN[:7], b" ", b"\n", "键".encode(), RUN * 9]), max_size=30))
def test_runs_are_those_of_a_pattern(parts: list[bytes]) -> None:
    data = b"".join(parts)
    expected = [found.span() for found in re.finditer(rb"[A-Za-z0-9+/_-]{40,}", data)]
    assert list(runs(data)) == expected


@pytest.mark.parametrize(
    ("data", "is_mostly"),
    [
        (MIXED * 20, True),
        ((MIXED + b"\n") * 20, True),
        (b"This is prose, as people write it. " * 200, False),
        (b'{"id":"a1b2c3","n":[1,2,3],"ok":true},' * 200, False),
        ("键盘和屏幕".encode() * 200, False),
        (b"4111111111111112\n" * 200, False),
        (b"8f14e45f-ceea-467f-9d5b-1a2b3c4d5e6f\n" * 200, True),
        (b"", False),
    ],
    ids=["run", "lines", "prose", "JSON", "other letters", "numbers", "hexadecimal", "empty"],
)
def test_text_of_runs_is_told_from_others(data: bytes, is_mostly: bool) -> None:
    assert is_mostly_runs(data) is is_mostly
