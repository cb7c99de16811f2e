"""What is found in a whole text, where it begins and where it ends."""

import asyncio
import random
import string
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.automata import Automaton
from proxy.policy.detect import Detector, Matcher, encode
from proxy.policy.examples import expand
from proxy.policy.patience import Patience, TooSlow
from proxy.policy.rules import RuleSet, load, read_rules
from proxy.policy.validators import card


def detector(*entries: dict[str, Any]) -> Detector:
    full = [{"id": f"r{n}", "category": "secret", "severity": "high", **entry} for n, entry in enumerate(entries)]
    return Detector(RuleSet(tuple(read_rules(full))))


def spans(text: str, *entries: dict[str, Any]) -> list[str]:
    return [text[found.start : found.end] for found in detector(*entries).find(text)]


KEY: dict[str, Any] = {"pattern": "key-[a-z]{4}", "alphabet": "[a-z0-9-]", "placeholders": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see key-abcd.", ["key-abcd"]),
        ("key-abcdefgh99 x", ["key-abcdefgh99"]),
        ("akey-abcd", []),
        ("key-abc", []),
        ("键key-abcd。key-wxyz", ["key-abcd", "key-wxyz"]),
        ("key-key-abcd", ["key-abcd"]),
        ("key-abcd-key-abcd", ["key-abcd-key-abcd"]),
        ("\ud800key-abcd\udfff", ["key-abcd"]),
        ("😀 key-abcd 😀 key-efgh", ["key-abcd", "key-efgh"]),
    ],
    ids=["plain", "run", "in a word", "short", "scripts", "later", "one run", "surrogates", "astral"],
)
def test_find_gives_the_whole_run_of_a_token(text: str, expected: list[str]) -> None:
    assert spans(text, KEY) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("key-abcd ", ["key-abcd"]), ("key-abcd1", []), ("key-abcd", ["key-abcd"])]
)
def test_find_when_exact_then_the_run_ends_with_the_pattern(text: str, expected: list[str]) -> None:
    assert spans(text, KEY | {"exact": True}) == expected


def test_find_when_a_text_ends_the_run_then_it_is_its_last_part() -> None:
    rule = {"pattern": "BEGIN [a-z]{4}", "alphabet": "[A-Za-z ]", "until": "END [a-z]{0,3};?"}
    assert spans("BEGIN abcd and on END ab and more.", rule) == ["BEGIN abcd and on END ab"]
    assert spans("BEGIN abcd and on.", rule) == ["BEGIN abcd and on"]


def test_find_when_only_a_part_is_secret_then_that_is_found() -> None:
    rule = {"pattern": "(?P<name>[a-z_]{1,20})=(?P<secret>[a-z0-9]{6})", "alphabet": "[a-z0-9]", "not_named": ["_id$"]}
    assert spans("pass=k3yk3yk4z user_id=abc123", rule) == ["k3yk3yk4z"]


def test_find_gives_the_findings_of_every_rule_by_place() -> None:
    text = "x key-abcd y tok-abcd"
    found = detector({"pattern": "tok-[a-z]{4}"}, KEY, {"pattern": "key-ab"}).find(text)
    assert [(finding.rule_id, finding.start, finding.end) for finding in found] == [
        ("r1", 2, 10),
        ("r2", 2, 8),
        ("r0", 13, 21),
    ]


def test_find_when_a_text_is_mostly_base64_then_every_rule_is_asked() -> None:
    chance, letters = random.Random(3), string.ascii_letters + string.digits + "+/"
    shipped = Detector(load())
    for rule in shipped.rules.rules[::12]:
        lines = ["".join(chance.choices(letters, k=76)) for _ in range(120)]
        lines[60:60] = [expand(example, rule.id) for example in rule.match]
        text = "\n".join(lines)
        alone = [found.rule_id for matcher in shipped.matchers for found in matcher.matches(encode(text))]
        assert sorted(found.rule_id for found in shipped.find(text)) == sorted(alone)
        assert rule.id in alone


async def test_find_in_a_thread_never_uses_the_automaton_of_the_event_loop() -> None:
    """RE2 locks one that ran out of memory to the end of a pass; the loop would wait for all of a large text."""
    apart, on_loop = detector(KEY), detector(KEY)
    apart._gate = on_loop._gate_apart = on_loop._gate_of_short = SimpleNamespace(hits=_locked)
    for text in ("see key-abcd.", "see key-abcd. " * 2000):
        assert await asyncio.to_thread(apart.find, text)
        assert await asyncio.to_thread(apart.suspects, text.encode())
        assert await asyncio.to_thread(apart.hits_of_stream, text.encode())
        assert on_loop.hits_of_stream(text.encode())
        assert on_loop.find(text)
        assert on_loop.suspects(text.encode())


async def test_find_in_a_short_text_never_uses_the_automaton_of_long_ones() -> None:
    short, long = detector(KEY), detector(KEY)
    short._gate_apart = long._gate_of_short = SimpleNamespace(hits=_locked)
    assert await asyncio.to_thread(short.find, "see key-abcd. " * 9_000)
    assert await asyncio.to_thread(long.find, "see key-abcd. " * 10_000)


def _locked(_data: bytes) -> list[int]:
    raise AssertionError("another thread uses it")


def test_judge_sees_no_more_than_the_limit_of_the_rule() -> None:
    rule = {"pattern": "key-[a-z]{4}", "alphabet": "[a-z0-9]", "max_length": 8, "allow": ["key-abcd"]}
    assert spans("key-abcdefgh key-abceefgh", rule) == ["key-abceefgh"]


def test_checksum_when_it_fails_then_the_finding_is_medium() -> None:
    rule = {"pattern": "[0-9]{3}-[0-9]{2}-[0-9]{4}", "checksum": "ssn", "placeholders": False}
    assert [found.severity for found in detector(rule).find("536-22-8726 000-22-8726")] == ["high", "medium"]


def test_encode_gives_one_character_for_one() -> None:
    assert encode("a\ud800é") == "a?é".encode()


@pytest.mark.parametrize("length", [14, 15, 16])
def test_a_number_is_a_candidate_for_a_card_just_if_it_lies_in_an_issued_range(length: int) -> None:
    """Otherwise every other number is searched, judged and rejected: random digits take three times as long."""
    rule = next(rule for rule in load().rules if rule.id == "payment-card")
    pattern = Automaton(rule.pattern)
    for issuer in range(10_000):
        numbers = [f"{issuer:04}{0:0{length - 5}}{digit}" for digit in range(10)]
        assert pattern.accepts(numbers[0].encode()) is any(map(card, numbers)), numbers[0]


PIECES = [
    "4111",
    "5555",
    "3782",
    "6011",
    "4111 1111 1111 1111",
    "4242-4242-4242-4242",
    "378282246310005",
    "30569309025904",
]
PIECES += ["536-22-8726", "+49 30 901820", "(415) 867-5309", "415.867.5309", "DE89370400440532013000", "GB29 NWBK 6016"]
PIECES += [*" -_.,\n%+(5xé", "%20", "%3D", "\\n", "\\u0022", "\\x3d", "[0m", "%5Cn", "ssn ", "tel ", "键"]


@settings(max_examples=200, deadline=None)
@given(chosen=st.lists(st.sampled_from(PIECES), min_size=1, max_size=40), digits=st.randoms(use_true_random=False))
def test_matches_in_a_large_text_are_those_of_a_small_one(chosen: list[str], digits: random.Random) -> None:
    """The search of large texts passes over what begins inside a word."""
    groups = ["".join(digits.choices(string.digits, k=digits.choice([4, 8, 16]))) for _ in chosen]
    text = "".join(
        piece + digits.choice(["", " ", group]) for piece, group in zip(chosen, groups, strict=True)
    ).encode()
    for matcher in numbers():
        small = list(matcher.matches(text))
        assert list(matcher.matches(text + b"\n" * 16_384)) == small, matcher.rule.id


@cache
def numbers() -> list[Matcher]:
    return [matcher for matcher in Detector(load()).matchers if matcher.rule.category == "pii"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b" 4242424242424242 ", (1, 17)),
        (b" %204242424242424242 ", (4, 20)),
        (b" _4242424242424242_ ", (2, 18)),
        (b" _4242424242424242 ", (2, 18)),
        (b"x4242424242424242 ", None),
        (b"4242424242424241\\n4242424242424242", (18, 34)),
        (b"4242424242424241%204242424242424242", (19, 35)),
        (b"9" * 40 + b" 4242424242424242", (41, 57)),
    ],
)
def test_matches_in_a_large_text_begin_where_a_word_does(text: bytes, expected: tuple[int, int] | None) -> None:
    (cards,) = [matcher for matcher in numbers() if matcher.rule.id == "payment-card"]
    found = [(finding.start, finding.end) for finding in cards.matches(text + b"\n" * 16_384)]
    assert found == ([expected] if expected else [])


def test_matches_in_a_large_text_may_begin_behind_an_underscore_that_was_rejected() -> None:
    rule = {
        "pattern": "[a-z_][a-z]{3}",
        "alphabet": "[a-z]",
        "allow": ["_.*"],
        "placeholders": False,
        "boundary": "number",
    }
    assert spans("_kxwq" + " " * 16_384, rule) == ["kxwq"]


async def test_patience_when_it_ends_then_the_scan_is_given_up_unless_the_text_is_short_and_clean():
    scanner, over = detector(KEY), Patience(-1.0)
    with pytest.raises(TooSlow):
        scanner.suspects(b"x y " * 600, over)
    for text in ("x y " * 600, "a key-abcd b"):
        with pytest.raises(TooSlow):
            scanner.find(text, over)
        assert scanner.find(text, Patience(3600.0)) == scanner.find(text)
    assert not scanner.suspects(b"x y " * 250, over)
    assert scanner.find("x y " * 250, over) == []
