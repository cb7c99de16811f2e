"""What a glance at a stream tells is what a closer look would tell."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.policy.detect import Detector
from proxy.policy.rules import RuleSet, read_rules
from proxy.policy.stream_team import Team

KEY = {"pattern": "key-[a-z]{20}", "placeholders": False}
NUMBER = {"pattern": "[0-9]{3}-[0-9]{4}"}
NAMED = {"pattern": r"pass\s{0,3}=\s{0,3}(?P<secret>[a-z0-9]{6})", "gate": r"pass\s*="}


def team(*groups: tuple[dict[str, Any], bool, int]) -> Team:
    entries = [
        {"id": f"r{n}", "category": "secret", "severity": "high", **entry} for n, (entry, _, _) in enumerate(groups)
    ]
    detector = Detector(RuleSet(tuple(read_rules(entries))))
    members = zip(detector.matchers, groups, strict=True)
    return Team(detector, (([matcher], leads, kept) for matcher, (_, leads, kept) in members))


ALL = team((KEY, False, 4), (NUMBER, False, 0), (NAMED, True, 0))


def many_keys() -> Team:
    patterns = [f"key-{letter}?[a-z]{{20}}" for letter in "abcdefghi"]
    entries = [{"id": f"r{n}", "category": "secret", "severity": "high", "pattern": p} for n, p in enumerate(patterns)]
    detector = Detector(RuleSet(tuple(read_rules(entries))))
    return Team(detector, [(list(detector.matchers), False, 4)])


@pytest.mark.parametrize(
    ("text", "asks"),
    [("see key", 0), ("see ke", 0), ("see key ", 0), (" ", 0), ("see key-", 1), ("monkey key-a", 1), ("key", 1)],
)
def test_glance_when_a_short_word_could_begin_a_match_then_nobody_asks_where(text: str, asks: int) -> None:
    one, asked = many_keys(), []
    ((ending, _),) = one._open_in_words
    ending.find = lambda *where, find=ending.find: asked.append(where) or find(*where)
    assert one.open_from(text.encode(), 0, 0) == len(text.removesuffix("a"))
    assert len(asked) == asks


@pytest.mark.parametrize(("cover", "leaves"), [(0, 7), (3, 7), (4, 7), (5, 4)])
def test_glance_when_a_mask_covers_the_beginning_of_a_word_then_nothing_is_kept_of_it(cover: int, leaves: int) -> None:
    assert many_keys().open_from(b"see key", 0, cover) == leaves


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("nothing here. ", "nothing here. "),
        ("this is key-abc", "this is key-"),
        ("call 55", "call "),
        ("call 55 or key", "call 55 or key"),
        ("my pas", "my pas"),
        ("my pass = ", "my pass = "),
        ("é call 123-4", "é call "),
    ],
)
def test_glance_when_nothing_is_found_then_it_tells_what_may_leave(text: str, leaves: str) -> None:
    assert ALL.open_from(text.encode(), 0, 0) == len(leaves.encode())


@pytest.mark.parametrize("text", ["call 123-4567 ", "my pass = a", "my pass = ab", "key-" + "a" * 20])
def test_glance_when_there_may_be_something_then_a_closer_look_is_needed(text: str) -> None:
    assert ALL.open_from(text.encode(), 0, 0) is None


def test_glance_when_the_gate_names_a_rule_that_does_not_match_then_it_is_enough() -> None:
    assert team((NAMED, False, 0)).open_from(b"pass = . ", 0, 0) == 9


def test_glance_when_a_mask_covers_the_place_then_nothing_of_it_leaves() -> None:
    assert ALL.open_from(b"is key-ab", 0, 5) == 3


def test_hits_go_to_the_groups_of_their_rules() -> None:
    assert ALL.hits(b"123-4567 pass = abcdef") == {1: [0], 2: [0]}
    assert ALL.hits(b"pas") == {}


def test_a_team_of_nobody_lets_everything_pass() -> None:
    assert Team(Detector(RuleSet(())), []).open_from(b"abc", 0, 0) == 3


@pytest.mark.parametrize("filler", ["a few words. ", "QmFzZTY0"], ids=["words", "base64"])
def test_hits_when_a_thread_reads_a_large_text_then_the_automata_of_the_event_loop_are_not_used(filler: str) -> None:
    all_of_them = team((KEY, False, 4), (NUMBER, False, 0), (NAMED, True, 0))
    detector = all_of_them._detector
    on_the_loop = detector._gate
    text = (filler * 2500 + " 123-4567 pass = abcdef").encode()
    expected, used = all_of_them.hits(text), []
    detector._gate = SimpleNamespace(hits=lambda data: used.append(data) or on_the_loop.hits(data))
    thread = threading.Thread(target=lambda: used.append(all_of_them.hits(text)))
    thread.start()
    thread.join()
    assert used == [expected] == [{1: [0], 2: [0]}]


def test_rules_of_one_group_when_they_are_many_then_divided_and_each_is_still_found() -> None:
    entries = [
        {"id": f"r{n}", "category": "secret", "severity": "high", "pattern": f"key{n:03}-[a-z]{{20}}"}
        for n in range(300)
    ]
    detector = Detector(RuleSet(tuple(read_rules(entries))))
    many = Team(detector, [(list(detector.matchers), False, 4)])
    assert [len(watch.matchers) for watch in many.watches] == [128, 128, 44]
    for number in (0, 127, 128, 299):
        ((watch, rules),) = many.hits(f"key{number:03}-{'a' * 20}".encode()).items()
        assert many.watches[watch].matchers[rules[0]].rule.id == f"r{number}"
        assert many.open_from(f"this is key{number:03}-ab".encode(), 0, 0) == len("this is key0")
