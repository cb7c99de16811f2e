"""Where a match may begin, by what stands before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.boundaries import BOUNDARIES, INSIDE_WORDS, next_place


@pytest.mark.parametrize(
    ("name", "before", "expected"),
    [
        ("anywhere", "a", True),
        ("word", "", True),
        ("word", "a", False),
        ("word", "_", True),
        ("word", " _", True),
        ("word", "\\n_", True),
        ("word", "a_", False),
        ("word", "__", False),
        ("word", "-", True),
        ("word", "键", True),
        ("word", "\\n", True),
        ("word", "x\\\\n", True),
        ("word", "%3D", True),
        ("word", "%253D", True),
        ("word", "\\u0022", True),
        ("word", "\x1b[0;32m", True),
        ("word", "n", False),
        ("alone", " ", True),
        ("alone", "-", True),
        ("alone", "\\n-", True),
        ("alone", "a-", False),
        ("alone", "a.", False),
        ("alone", "a", False),
        ("base64", "=", True),
        ("base64", "/", True),
        ("base64", " +", True),
        ("base64", "\\n+", True),
        ("base64", "a/", False),
        ("base64", "++", False),
        ("base64", "a", False),
        ("named", "DB_", True),
        ("named", "my", True),
        ("named", "admin", True),
        ("named", "primary_", False),
        ("named", "max", False),
        ("named", "gptMax", False),
        ("named", "by", False),
        ("named", "n_", False),
        ("named", "ADMIN_", True),
        ("named", "\\n", True),
        ("named", "PublicKey", False),
        ("named", "Next page ", False),
        ("named", "sign in by ", True),
        ("number", "1-", False),
        ("number", "a-", True),
        ("number", "1 ", True),
        ("number", "-", True),
        ("number", "1", False),
    ],
)
def test_boundary_accepts_a_place(name: str, before: str, expected: bool) -> None:
    data = before.encode()
    assert BOUNDARIES[name](data + b"123", len(data)) is expected


@given(
    parts=st.lists(
        st.sampled_from(["a", "B1_", "xyzw" * 5, "-", " ", "+/", "\\n", "\\u0041", "%3D", "%5Cu0041", "[0;31m", "é"])
    )
)
def test_next_place_passes_over_no_place_where_something_may_begin(parts: list[str]) -> None:
    data = "".join(parts).encode()
    at = 0
    while at < len(data):
        after = next_place(data, at)
        assert at < after <= len(data)
        for name in BOUNDARIES.keys() - INSIDE_WORDS:
            assert not any(BOUNDARIES[name](data, place) for place in range(at + 1, after) if place < len(data))
        at = after
