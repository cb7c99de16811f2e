"""The forms a pattern takes."""

from proxy.policy.patterns import bounded, opened, wrong_pattern


def test_bounded_and_opened_change_repeats_alone() -> None:
    assert bounded(r"a*[+*]\+b{2,}") == r"a{0,256}[+*]\+b{2,258}"
    assert opened(r"a{0,9}b{3}[{2,3}]") == r"a*b{3}[{2,3}]"


def test_wrong_pattern_names_what_no_linear_engine_has() -> None:
    assert "look-around" in (wrong_pattern("(?=a)b") or "")
    assert wrong_pattern("a{3}") is None
