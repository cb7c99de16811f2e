"""The forms a pattern takes."""

from proxy.policy.patterns import bounded, opened, wrong_pattern


def test_bounded_and_opened_change_repeats_alone() -> None:
    assert bounded(r"a*[+*]\+b{2,}") == r"a{0,256}[+*]\+b{2,258}"
    assert opened(r"a{0,9}b{3}[{2,3}]c+d*") == r"a*b{3}[{2,3}]c+d*"


def test_opened_keeps_of_long_repeats_what_tells_them_from_words() -> None:
    assert opened(r"a{36}b{20,40}c{2,9}") == r"a{16,}b{16,}c{2,}"


def test_wrong_pattern_names_what_no_linear_engine_has() -> None:
    assert "look-around" in (wrong_pattern("(?=a)b") or "")
    assert wrong_pattern("a{3}") is None
