"""Which of the two engines reads a text makes no difference, and neither does where its blocks are cut."""

import random
import re
import string
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.policy import crowds, detect
from proxy.policy.automata import Automaton
from proxy.policy.detect import Matcher
from proxy.policy.examples import expand
from proxy.policy.rules import load, read_rules

PIECES = [
    "4242 4242 4242 4242",
    "4242424242424241",
    "378282246310005",
    "12",
    "2026-01-02",
    "415-867-5309",
    "+49 30 9018200",
]
PIECES += [
    "(415) 867-5309",
    "536-22-8726",
    "DE89370400440532013000",
    "jane.doe@acme-corp.de",
    "a@b@c.org",
    "info@x.com",
]
PIECES += ["4242%204242%204242%204242", "_", "\\n", "%20", "\\u0020", "[1m", "é", "键", ".", "-", "x", "/", "%40", "+"]


def rule(pattern: str, **more: Any) -> Any:
    return read_rules([{"id": "r", "category": "pii", "severity": "high", "pattern": pattern, **more}])[0]


@cache
def matchers() -> list[tuple[Matcher, Matcher]]:
    """Those that read crowds in blocks, and the same that never do."""
    pairs = [(Matcher(each), Matcher(each)) for each in load().rules if crowds.compiled(each)]
    for _, single in pairs:
        single.__dict__["_crowds"] = None
    return pairs


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "LARGE", 0)
    monkeypatch.setattr(crowds, "BLOCK", 300)
    monkeypatch.setattr(detect, "BLOCK", 300)


def test_rules_for_personal_data_are_read_that_way() -> None:
    read = {single.rule.id for single, _ in matchers()}
    assert {"payment-card", "iban", "us-ssn", "email-address", "phone-number"} <= read


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", " ", ",", "\n"])), min_size=1, max_size=9
    ),
    seed=st.integers(0, 1 << 20),
)
@example(parts=[("4242 4242 4242 4242", " ")], seed=0)
def test_matches_of_a_crowded_text_are_those_of_re2(parts: list[tuple[str, str]], seed: int) -> None:
    chance = random.Random(seed)
    numbers = [("".join(chance.choices(string.digits, k=chance.choice([4, 9, 15, 16]))), " ") for _ in parts]
    data = "".join("".join(chance.choice([*parts, *numbers])) for _ in range(300)).encode()
    for crowded, single in matchers():
        assert list(crowded.matches(data)) == list(single.matches(data)), crowded.rule.id


@pytest.mark.usefixtures("small_blocks")
def test_matches_of_crowds_of_every_rules_examples_are_those_of_re2() -> None:
    chance = random.Random("crowds")
    for crowded, single in matchers():
        examples = [expand(text, crowded.rule.id) for text in (*crowded.rule.match, *crowded.rule.no_match)]
        data = "".join(chance.choice(examples) + chance.choice("\n ,;_x") for _ in range(120)).encode()
        assert list(crowded.matches(data)) == list(single.matches(data)), crowded.rule.id


def searches(matcher: Matcher, data: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often RE2 is asked for the next match of `matcher`."""
    count = 0
    plain = matcher._pattern.search

    def search(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return plain(*arguments)

    monkeypatch.setattr(matcher._pattern, "search", search)
    list(matcher.matches(data))
    return count


def lines(matcher_id: str, line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    (shipped,) = [each for each in load().rules if each.id == matcher_id]
    chance = random.Random("lines")
    text = "\n".join(line % chance.randrange(100, 999) for _ in range(2000))
    return searches(Matcher(shipped), text.encode(), monkeypatch)


@pytest.mark.parametrize(
    ("line", "is_crowd"),
    [
        ("jane.doe%d@acme-corp.de", True),
        ("jane.doe%d@acme-corp.de" + " words in between" * 20, False),
        ("jane.doe%d@acme-corp.de\\n", False),
        ("_jane.doe%d@acme-corp.de", False),
    ],
    ids=["close", "apart", "escapes", "underscores"],
)
def test_text_when_its_matches_are_close_and_nothing_hides_a_word_then_re2_is_asked_once_a_block(
    line: str, is_crowd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (lines("email-address", line, monkeypatch) < 200) is is_crowd


def test_text_when_a_block_takes_too_long_then_re2_reads_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "TOO_LONG_S", -1)
    assert lines("email-address", "jane.doe%d@acme-corp.de", monkeypatch) > 1500


@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)abc-[0-9]{4}",
        "a.c",
        "[^a]bc",
        r"ab\b-c",
        r"ab\d{3}",
        "a{,3}b",
        "(?:a*){2}b",
        "é{3}",
        "(?<secret>abc)",
        "[--a]b",
    ],
)
def test_pattern_that_could_mean_something_else_is_left_to_re2(pattern: str) -> None:
    assert crowds.compiled(rule(pattern)) is None


def test_rule_that_begins_inside_words_is_left_to_re2() -> None:
    assert crowds.compiled(rule("abc[0-9]{3}", boundary="anywhere")) is None


@pytest.mark.parametrize(
    "pattern", ["ab(?P<secret>[0-9]{3,5})x?", r"\+(?:a|ab)(?:c|bcd)[x.]{1,3}?", "]{2}a", "[]a-c]{2}z"]
)
def test_compiled_gives_the_spans_of_re2(pattern: str) -> None:
    compiled = crowds.compiled(rule(pattern))
    assert compiled is not None
    automaton = Automaton(rule(pattern).pattern)
    chance = random.Random(pattern)
    for _ in range(3000):
        data = bytes(chance.choices(b"ab+cd]x.z1 7", k=chance.randrange(1, 20)))
        found = automaton.search(data, 0)
        begun = [match for match in compiled.finditer(data) if not re.match(rb"\w\w", data[match.start() - 1 :][:2])]
        if found is not None and (found[0][0] == 0 or not re.match(rb"\w", data[found[0][0] - 1 :])):
            assert begun[0].regs[1:] == tuple(found)


@pytest.mark.parametrize(
    "more",
    [
        {"pattern": "4[0-9]{15}", "alphabet": "[0-9]"},
        {"pattern": "4[0-9]{15}", "alphabet": "[0-9]", "exact": True, "max_length": 13},
        {"pattern": "0:(?P<secret>4[0-9]{14,15})", "alphabet": "[0-9]", "exact": True},
        {"pattern": "4[0-9]{15}", "alphabet": "[0-9]", "exact": True},
    ],
    ids=["run", "cut", "context", "exact"],
)
@pytest.mark.usefixtures("small_blocks")
def test_sift_sees_what_the_validator_sees(more: dict[str, Any]) -> None:
    crowded, single = (Matcher(rule(**more, validators=["card"], placeholders=False)) for _ in range(2))
    single.__dict__["_crowds"] = None
    chance = random.Random("sift")
    numbers = [
        "4242424242424242",
        "4222222222222000",
        "4222222222222001",
        "4000000000000000006",
        "4242424242424241",
        "424242424242424",
    ]
    data = "".join(chance.choice([" ", " 0:"]) + chance.choice(numbers) for _ in range(2000)).encode()
    found = list(crowded.matches(data))
    assert found == list(single.matches(data)) and found
