"""The forms a pattern takes."""

import time
from itertools import product

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.boundaries import ESCAPES
from proxy.policy.patterns import AT_WORD, NEAR_WORD, any_of, at_end, bounded, opened, options, wrong_pattern


def test_bounded_and_opened_change_repeats_alone() -> None:
    assert bounded(r"a*[+*]\+b{2,}") == r"a{0,256}[+*]\+b{2,258}"
    assert opened(r"a{0,9}b{3}[{2,3}]c+d*") == r"a*b{3}[{2,3}]c+d*"


def test_opened_keeps_of_long_repeats_what_tells_them_from_words() -> None:
    assert opened(r"a{36}b{20,40}c{2,9}") == r"a{16,}b{16,}c{2,}"


def test_bounded_and_opened_leave_the_number_of_a_character() -> None:
    assert opened(bounded(r"\x{2013}{3}\x{41}+"), 8) == r"\x{2013}{3}\x{41}+"


def test_wrong_pattern_names_what_no_linear_engine_has() -> None:
    assert "look-around" in (wrong_pattern("(?=a)b") or "")
    assert wrong_pattern("a{3}") is None


def test_opened_asks_for_as_much_as_it_is_told() -> None:
    assert opened(r"a{36}b{3,40}c{2}", 8) == r"a{8,}b{3,}c{2}"


@given(escape=st.from_regex(ESCAPES, fullmatch=True))
def test_words_begin_behind_every_escape_for_a_gate_as_well(escape: str) -> None:
    assert re2.compile(NEAR_WORD).fullmatch(escape)


def test_any_of_says_once_how_patterns_begin() -> None:
    assert any_of(["_a", "b|c", "_d"], "_") == "(?:b|c|_(?:a|d))"
    assert any_of(["b"], "_") == "(?:b)"


@pytest.mark.parametrize(
    ("text", "start"),
    [("a key", 2), ("monkey", None), ("it is b", 6), ("b or c", None), ("x-y", 1), ("key ", None), (r"\nkey", 0)],
)
def test_at_end_finds_what_any_of_the_patterns_finds_there(text: str, start: int | None) -> None:
    found = re2.compile(at_end([f"{AT_WORD}key", "-y", f"{AT_WORD}(?:a|b)"])).search(text)
    assert (found and found.start()) == start


def test_at_end_when_it_is_of_many_patterns_then_it_compiles_in_less_time_than_each_of_them_alone() -> None:
    """Four times as long with one end for all of these."""
    words = ["".join(letters) for letters in product("abcdefg", repeat=3)]
    closures = [f"{AT_WORD}{''.join(f'(?:{letter}' for letter in word * 4)}{')?' * 12}" for word in words]

    def compiled_s(patterns: list[str]) -> float:
        times = []
        for _ in range(3):
            begun = time.thread_time()
            for pattern in patterns:
                re2._re2.RE2(pattern.encode(), options())
            times.append(time.thread_time() - begun)
        return min(times)

    assert compiled_s([at_end(closures)]) < compiled_s([at_end([closure]) for closure in closures])
