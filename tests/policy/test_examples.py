"""Examples are expanded the same way each time, and tell whether a rule does what they say."""

import random
from functools import cache

import pytest
import re2

from proxy.policy import openings, patterns, prefixes, rules
from proxy.policy.automata import Gate
from proxy.policy.detect import Detector
from proxy.policy.examples import expand, failures
from proxy.policy.prefixes import Atom, Group, Mark, Node, Repeat
from proxy.policy.rules import Rule, RuleSet, read_rules

SHIPPED = rules.load()


def test_expand_is_the_same_for_the_same_seed() -> None:
    assert expand("x{A30}{crc}", "seed") == expand("x{A30}{crc}", "seed")
    assert len(expand("x{A30}{crc}", "seed")) == 37


def test_shipped_rules_do_what_their_examples_say() -> None:
    assert not list(failures(SHIPPED))
    assert all(rule.no_match for rule in SHIPPED.rules)


def test_failures_name_the_example_and_quote_nothing() -> None:
    entry = {"id": "a", "category": "secret", "severity": "high", "pattern": "key[0-9]{4}"}
    checked = read_rules(
        [{**entry, "match": ["key1234", "key12"], "no_match": ["none", "akey99999"]}, {**entry, "id": "b"}]
    )
    assert list(failures(RuleSet(tuple(checked)))) == [
        "a: example 2 of `match` is not found",
        "b: has no example that must match",
    ]
    (found,) = failures(RuleSet(tuple(read_rules([{**entry, "match": ["key1234"], "no_match": ["key5678"]}]))))
    assert found == "a: example 1 of `no_match` is found"


@pytest.mark.parametrize("rule", SHIPPED.rules, ids=lambda rule: rule.id)
def test_gate_lets_pass_whatever_the_pattern_matches(rule: Rule) -> None:
    chance = random.Random(rule.id)
    pattern = re2.compile(rule.pattern, patterns.options())
    gate = Gate([openings.gate(rule)])
    tree = prefixes.parse(rule.pattern)
    for _ in range(25):
        text = _written(tree, chance)
        if pattern.search(text):
            assert gate.hits(text.encode()), text


@pytest.mark.parametrize("rule", SHIPPED.rules, ids=lambda rule: rule.id)
def test_glance_tells_of_whatever_the_pattern_matches_and_of_secrets_that_have_begun(rule: Rule) -> None:
    chance = random.Random(rule.id)
    pattern = re2.compile(rule.pattern, patterns.options())
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, rules.SECRET_GROUP) if openings.has_lead(rule) else None
    opened = openings.Openings([rule])
    glance = Gate(opened.led() if split else [opened.near()])
    begun = re2.compile(rf"{split[0]}{prefixes.begun(split[1])}\z" if split else r"[^\x00-\x{10ffff}]")
    for _ in range(25):
        text = _written(tree, chance)
        for seen in (text, f"{text} ."):
            if pattern.search(seen):
                assert glance.hits(seen.encode()), seen
        part = text[: chance.randrange(len(text) + 1)]
        if begun.search(part):
            assert glance.hits(part.encode()), part


def test_examples_are_found_among_all_rules() -> None:
    detector = Detector(SHIPPED)
    for rule in SHIPPED.rules:
        for example in rule.match:
            assert detector.find(expand(example, rule.id)), rule.id


def _written(node: Node, chance: random.Random) -> str:
    """Return a text that `node` matches, conditions between characters aside."""
    match node:
        case Atom(text):
            return chance.choice(_letters(text))
        case Mark():
            return ""
        case Group(_, branches):
            branch = chance.choice(branches)
            return "".join(_written(part, chance) for part in branch)
        case Repeat(inner, low, high):
            most = low + 3 if high is None else min(high, low + 3)
            return "".join(_written(inner, chance) for _ in range(chance.randint(low, most)))


_ALL = [chr(code) for code in range(32, 127)] + [*"\n\r\t\x1b\xa0é：이钥码ה"]


@cache
def _letters(atom: str) -> list[str]:
    """Return what an atom matches: letters of these, or characters that it names itself."""
    pattern = re2.compile(atom, patterns.options())
    return [letter for letter in [*_ALL, *atom] if pattern.fullmatch(letter)]
