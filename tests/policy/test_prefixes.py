"""A closure matches the beginnings of the matches of its pattern, all of them and nothing else."""

from itertools import product

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.prefixes import (
    Group,
    UnsupportedPattern,
    begins_with_word,
    begun,
    closure,
    loosened,
    parse,
    source,
    split_at,
    width,
)

TOKENS = (
    r"ghp_[A-Za-z0-9]{36}",
    r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{40,200}",
    r"(?:AKIA|ASIA)[A-Z2-7]{16}",
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{40,}",
    r"(?i)rm\s+-(?:rf|fr)\s+/",
    r"(?P<name>password|secret)\s{0,3}[:=]\s{0,3}(?P<value>[^\s\"']{8,})",
    r"[a-z0-9.]{1,64}@(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,}",
    r"\b\d{3}-\d{2}-\d{4}\b",
)
LETTERS = "ab-"
LONGEST = 5


@pytest.mark.parametrize("pattern", TOKENS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_closure_matches_every_beginning_of_a_match(pattern: str, data: st.DataObject) -> None:
    beginnings = re2.compile(closure(parse(pattern)))
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    if not re2.compile(pattern).fullmatch(text):
        return
    for end in range(len(text) + 1):
        assert beginnings.fullmatch(text[:end]), text[:end]


def atoms() -> st.SearchStrategy[str]:
    return st.sampled_from(["a", "b", "-", "[ab]", "[^a]", "."])


def patterns() -> st.SearchStrategy[str]:
    repeats = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,2}", "{0,2}", "{2,}"])
    pieces = st.recursive(
        st.tuples(atoms(), repeats).map("".join),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map("".join),
            st.tuples(st.lists(inner, min_size=1, max_size=3), repeats).map(
                lambda parts: "(?:" + "|".join(parts[0]) + ")" + parts[1]
            ),
        ),
        max_leaves=5,
    )
    return st.lists(pieces, min_size=1, max_size=3).map("".join)


WORDS = ["".join(letters) for size in range(LONGEST + 1) for letters in product(LETTERS, repeat=size)]
LONG_WORDS = ["".join(letters) for letters in product("a-", repeat=9)]


@settings(max_examples=80, deadline=None)
@given(pattern=patterns())
def test_closure_matches_exactly_the_words_that_can_be_continued(pattern: str) -> None:
    tree = parse(pattern)
    whole, beginnings = re2.compile(source(tree)), re2.compile(closure(tree))
    matches = [word for word in WORDS if whole.fullmatch(word)]
    expected = {word[:end] for word in matches for end in range(len(word) + 1)} or {""}
    found = {word for word in WORDS if beginnings.fullmatch(word)}
    assert expected <= found
    _, greatest = width(tree)
    for word in found - expected:  # its continuation is longer than the words tried: some continuation must exist
        more = (word + tail for tail in WORDS)
        is_longer = greatest is None or greatest > len(word) + LONGEST
        assert is_longer or any(whole.fullmatch(longer) for longer in more), word


@settings(max_examples=80, deadline=None)
@given(pattern=patterns())
def test_begun_matches_what_the_closure_does_but_the_empty_text(pattern: str) -> None:
    tree = parse(pattern)
    closed, started = re2.compile(closure(tree)), re2.compile(begun(tree))
    for word in WORDS[1:]:
        assert (started.fullmatch(word) is not None) == (closed.fullmatch(word) is not None)


def test_begun_when_a_pattern_is_never_empty_then_it_is_not_either() -> None:
    for pattern in TOKENS:
        assert re2.compile(begun(parse(pattern))).fullmatch("") is None


@settings(max_examples=60, deadline=None)
@given(pattern=patterns(), word=st.text(LETTERS, max_size=8))
def test_source_and_width_describe_the_same_pattern(pattern: str, word: str) -> None:
    tree = parse(pattern)
    matched = re2.compile(pattern).fullmatch(word)
    assert bool(matched) == bool(re2.compile(source(tree)).fullmatch(word))
    least, greatest = width(tree)
    if matched:
        assert least <= len(word)
        assert greatest is None or len(word.encode()) <= greatest
        assert re2.compile(source(loosened(tree))).fullmatch(word)


@pytest.mark.parametrize("pattern", ["a{0}b", "(?:a|b){0,0}c", "x(?:ab){0}"])
def test_what_is_repeated_no_times_is_nothing(pattern: str) -> None:
    tree = parse(pattern)
    for word in ("a", "b", "c", "ab", "ac", "x", "xab"):
        is_match = re2.compile(pattern).fullmatch(word) is not None
        for of_it in (source, begun, closure):
            assert (re2.compile(of_it(tree)).fullmatch(word) is not None) is is_match


def test_flags_at_the_head_hold_for_the_closure() -> None:
    beginnings = re2.compile(closure(parse("(?i)drop|sudo")))
    assert beginnings.fullmatch("DR")
    assert beginnings.fullmatch("sUd")
    assert not beginnings.fullmatch("x")


def test_a_mark_takes_no_width_and_is_kept() -> None:
    tree = parse(r"\babc\b")
    assert width(tree) == (3, 3)
    beginnings = re2.compile(closure(tree) + r"\z")
    assert beginnings.search("xab").start() == 3
    assert beginnings.search(" ab").start() == 1


def test_split_at_gives_what_leads_to_a_group() -> None:
    lead, rest = split_at(parse(r"(?i)key\s*=\s*(?P<secret>[a-z]{8,})\b"), "secret") or ("", Group("", ()))
    assert lead == r"(?i:key\s*=\s*)"
    assert source(rest) == r"(?i:(?:[a-z]{8,})\b)"


@pytest.mark.parametrize("pattern", [r"a|(?P<secret>b)", r"(?:x(?P<secret>b))+", "abc"])
def test_split_at_gives_none_when_the_group_is_not_a_plain_part(pattern: str) -> None:
    assert split_at(parse(pattern), "secret") is None


def test_width_counts_alternatives_and_repeats() -> None:
    assert width(parse("(?:ab|c){2,3}d?")) == (2, 7)
    assert width(parse("a|b+")) == (1, None)
    assert width(parse("(?:a*)?")) == (0, None)


@pytest.mark.parametrize(
    "pattern",
    [r"a(?i)b", r"(?=a)", r"(?<!a)b", r"(a", r"a)", r"[a", r"\1", r"\Qa\E", "*a", "a{2}{3}", r"\b+", "(?#note)"],
)
def test_parse_refuses_what_it_does_not_know(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern, match="at character"):
        parse(pattern)


@pytest.mark.parametrize(
    ("pattern", "greatest"),
    [
        ("[a-z]{3}", 3),
        ("[^a]", 4),
        (".", 4),
        (r"\d\s", 2),
        (r"\D", 4),
        ("(?i)k", 4),
        ("(?i:k)b", 5),
        ("[é]", 4),
        (r"[\W]", 4),
    ],
)
def test_width_counts_four_bytes_unless_a_character_is_ascii(pattern: str, greatest: int) -> None:
    assert width(parse(pattern))[1] == greatest


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("abc", True),
        ("[A-Z]{2}-", True),
        ("(?:a|_b)", True),
        (r"\dx", True),
        ("a?b", False),
        ("-a", False),
        ("[a+]", False),
    ],
)
def test_begins_with_word(pattern: str, expected: bool) -> None:
    assert begins_with_word(parse(pattern)) is expected


def test_loosened_frees_long_repeats_and_keeps_short_ones() -> None:
    assert source(loosened(parse("a{40,60}b{3}(?:c{9}d){2,8}"))) == "(?:a+b{3}(?:c+d)+)"
