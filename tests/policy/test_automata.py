"""The binding's inner call does what its public functions do."""

import pytest
import re2

from proxy.policy.automata import Automaton, Ending, Gate


@pytest.mark.parametrize(
    ("pattern", "data", "at"),
    [
        ("a(?P<x>b+)?c", b"ac abbc", 0),
        ("a(?P<x>b+)?c", b"ac abbc", 1),
        ("a(?P<x>b+)?c", b"xyz", 0),
        (r"\bab", b"cab ab", 1),
        (r"^ab", b"ab ab", 3),
        ("é.", "aé键z".encode(), 0),
        ("a", b"", 0),
        (r"ab\z", b"ab ab", 0),
    ],
)
def test_search_gives_the_spans_of_the_public_search(pattern: str, data: bytes, at: int) -> None:
    found = re2.compile(pattern.encode()).search(data, at)
    spans = Automaton(pattern).search(data, at)
    assert spans == (found and [found.span(), *map(found.span, range(1, found.re.groups + 1))])


def test_search_when_it_has_an_end_then_what_follows_is_only_looked_at() -> None:
    assert Automaton("ab*").search(b"abbb", 0, 2) == [(0, 2)]
    assert Automaton(r"ab\b").search(b"abb", 0, 2) is None


def test_accepts_only_all_of_a_text() -> None:
    word = Automaton("(?P<all>a+)b?")
    assert word.groups == {"all": 1}
    assert word.accepts(b"aab")
    assert not word.accepts(b"aabx")


@pytest.mark.parametrize(("data", "start"), [(b"xaab", 1), (b"xab b", 4), (b"x", 1), (b"", 0), (b"aab", 1)])
def test_ending_gives_the_longest_one(data: bytes, start: int) -> None:
    assert Ending(["ab", "b", "aab"]).start(data, start if data == b"aab" else 0) == start


def test_ending_without_patterns_is_nowhere() -> None:
    assert Ending([]).start(b"abc", 0) == 3


def test_a_wrong_pattern_is_refused() -> None:
    with pytest.raises(re2.error):
        Automaton("(")


def test_gate_gives_the_patterns_that_match_somewhere() -> None:
    gate = Gate(["ab", "b+", r"c\z"])
    assert sorted(gate.hits(b"xabx")) == [0, 1]
    assert sorted(gate.hits(b"abc c")) == [0, 1, 2]
    assert gate.hits(b"x") == []
