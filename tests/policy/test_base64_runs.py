"""Runs of base64 are seen wherever they stand, those across two pieces of a large text included."""

import pytest

from proxy.policy.base64_runs import ends_in_run, is_mostly_runs, may_hold_run

RUN = b"Ab9+/_-Z" * 5


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
    assert may_hold_run(data) is holds
    assert ends_in_run(data) is ends


@pytest.mark.parametrize("at", [0, 1, 39, 40])
def test_run_across_two_pieces_of_a_large_text_is_seen(at: int) -> None:
    assert may_hold_run(b" " * ((1 << 18) - at) + RUN + b" ")


@pytest.mark.parametrize(
    ("data", "is_mostly"),
    [
        (RUN * 200, True),
        ((RUN + b"\n") * 200, True),
        (b"This is prose, as people write it. " * 200, False),
        (b'{"id":"a1b2c3","n":[1,2,3],"ok":true},' * 200, False),
        ("键盘和屏幕".encode() * 200, False),
        (b"", False),
    ],
    ids=["run", "lines", "prose", "JSON", "other letters", "empty"],
)
def test_text_of_runs_is_told_from_others(data: bytes, is_mostly: bool) -> None:
    assert is_mostly_runs(data) is is_mostly
