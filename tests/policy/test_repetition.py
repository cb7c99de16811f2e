"""Texts that repeat themselves are read at once, with the findings of a reading candidate by candidate."""

import random
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.nouns.findings import Finding
from proxy.policy.detect import Detector, Matcher
from proxy.policy.examples import expand
from proxy.policy.repetition import Repetition
from proxy.policy.rules import RuleSet, load, read_rules

UNITS = [
    "key-",
    "key-abcd",
    "key-abcd ",
    " 12-34",
    "12-34 ",
    "\\n12-34",
    "%2012-34",
    "a",
    "1",
    "_",
    ".",
    " ",
    "\n",
    "é",
]
"""What the texts consist of: candidates, what may stand before them, what ends them."""


@cache
def matchers() -> tuple[Matcher, ...]:
    rule = {"category": "secret", "severity": "high", "max_length": 24}
    entries = [
        {"id": "run", "pattern": "key-[a-z-]{4}", "alphabet": "[a-z0-9-]", **rule},
        {"id": "exact", "pattern": "key-[a-z-]{4}", "alphabet": "[a-z0-9]", "exact": True, **rule},
        {"id": "number", "pattern": "[0-9]{2}-[0-9]{2}", "alphabet": "[0-9]", "boundary": "number", **rule},
        {"id": "end", "pattern": r"[0-9]{2}\b", "boundary": "anywhere", "placeholders": False, **rule},
        {"id": "until", "pattern": "key-", "alphabet": "[a-z0-9-]", "until": "12", "placeholders": False, **rule},
        {"id": "secret", "pattern": "(?P<name>[a-z]{1,3})-(?P<secret>[a-z0-9]{2})", "not_named": ["^a"], **rule},
    ]
    return Detector(RuleSet(tuple(read_rules(entries)))).matchers


def one_by_one(matcher: Matcher, data: bytes) -> list[Finding]:
    """Return the findings, decided candidate by candidate, as in a stream."""
    found, at = [], 0
    while (candidate := matcher.search(data, at)) is not None:
        finding = matcher.judge(data, candidate)
        at = matcher.after(data, candidate) if finding is None else finding.end
        found += [] if finding is None else [finding]
    return found


repeated = st.builds(
    lambda units, times, more: "".join(units) * times + "".join(more),
    st.lists(st.sampled_from(UNITS), min_size=1, max_size=5),
    st.sampled_from([1, 3, 20, 45, 150]),
    st.lists(st.sampled_from(UNITS), max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(repeated, min_size=1, max_size=4), cut=st.integers(0, 20))
@example(parts=["key-" * 150, "key-abcd "], cut=0)
def test_matches_when_a_text_repeats_itself_then_nothing_changes(parts: list[str], cut: int) -> None:
    data = "".join(parts).encode()[cut:]
    for matcher in matchers():
        assert list(matcher.matches(data)) == one_by_one(matcher, data), matcher.rule.id


def test_matches_of_the_shipped_rules_in_repeated_pieces_of_their_examples() -> None:
    chance = random.Random("repeated")
    for matcher in Detector(load()).matchers:
        examples = [expand(text, matcher.rule.id) for text in (*matcher.rule.match, *matcher.rule.no_match)]
        for text in examples:
            cut = chance.randrange(1, len(text) + 1)
            pieces = [text[:cut] * 70, text * 40, text[cut // 2 : cut] * 90, (text + " ") * 40]
            chance.shuffle(pieces)
            data = "".join(pieces).encode()
            assert list(matcher.matches(data)) == one_by_one(matcher, data), matcher.rule.id


@pytest.mark.parametrize("size", [100_000, 100_003])
def test_skip_goes_to_the_last_candidate_that_is_repeated_in_all_that_decides(size: int) -> None:
    data = (b"ab-" * size)[:size] + b"!"
    repetition = Repetition(50)
    for begin in range(0, 96, 3):
        repetition.decided.append((begin, None))
    last = repetition.skip(data, 96, [])
    assert last % 3 == 0
    assert last + 50 <= size < last + 3 + 50


def test_skip_repeats_the_findings_of_all_candidates_of_a_period() -> None:
    data = b"ab-cd-" * 100
    repetition = Repetition(12)
    for begin in range(0, 96, 3):
        repetition.decided.append((begin, Finding("r", "pii", "low", begin, begin + 2) if begin % 6 else None))
    found: list[Finding] = []
    last = repetition.skip(data, 96, found)
    assert last == 588
    assert found == [Finding("r", "pii", "low", start, start + 2) for start in range(99, last, 6)]


def test_skip_when_something_else_precedes_the_former_candidate_then_it_stays() -> None:
    data = b"." * 200 + b"ab-" * 100
    repetition = Repetition(12)
    for begin in range(200 - 31, 201):
        repetition.decided.append((begin, None))
    assert repetition.skip(data, 203, []) == 203


def test_skip_when_the_text_does_not_repeat_itself_then_it_stays() -> None:
    data = bytes(random.Random(3).choices(b"ab-", k=4000))
    repetition = Repetition(20)
    found: list[Finding] = []
    for begin in range(0, 3900, 3):
        assert repetition.skip(data, begin, found) == begin
        repetition.decided.append((begin, None))
    assert not found
