"""From where on a text that goes on may still hold something."""

import random
import threading

import pytest

from proxy.policy import gates as gates_module
from proxy.policy import openings as openings_module
from proxy.policy import patterns, prefixes, rules
from proxy.policy.automata import Gate
from proxy.policy.openings import Openings, has_lead, least_secret
from proxy.policy.rules import Rule, read_rules


def rule(pattern: str, **more: str) -> Rule:
    return read_rules([{"id": "r", "category": "secret", "severity": "high", "pattern": pattern, **more}])[0]


KEY = "key-[a-z]{20}"
NAMED = r"pass\s{0,3}=\s{0,3}(?P<secret>[a-z0-9]{6})"


@pytest.mark.parametrize(
    ("text", "open_part"),
    [
        ("nothing here.", ""),
        ("this is k", "k"),
        ("use key-abc", "key-abc"),
        ("use key-abc ", ""),
        ("monkey-abc", ""),
        ("use \\nkey-ab", "\\nkey-ab"),
        ("a key-" + "b" * 200, "key-" + "b" * 200),
    ],
)
def test_start_gives_the_first_open_place(text: str, open_part: str) -> None:
    assert text[Openings([rule(KEY)]).start(text.encode(), 0) :] == open_part


def test_settled_when_the_part_is_longer_than_any_match_then_only_its_end_is_open() -> None:
    data = b"x key-" + b"a" * 500
    openings = Openings([rule(KEY)])
    assert openings.start(data, 0) == 2
    openings.prepare()
    assert openings.settled(data, 0) == len(data)
    assert openings.settled(data + b" key-a", 0) == len(data) + 1


def many() -> Openings:
    return Openings([rule(f"key{number:02}-[a-z]{{20}}(?:{'x' * 400})?") for number in range(40)])


def test_settled_when_rules_are_many_then_the_event_loop_compiles_some_at_a_time_and_is_careful_meanwhile() -> None:
    openings = many()
    data = b"x key00-" + b"a" * 1000
    answers = []
    for _ in range(10):
        answers.append((openings.settled(data, 0), openings.is_prepared))
        openings.prepare()
    assert sorted(set(answers)) == [(0, False), (len(data), True)] and answers == sorted(answers)
    assert answers.count((0, False)) > 1


def test_settled_on_a_thread_compiles_all_at_once() -> None:
    openings, answers = many(), []
    thread = threading.Thread(target=lambda: answers.append(openings.settled(b"x key00-" + b"a" * 1000, 0)))
    thread.start()
    thread.join()
    assert answers == [1008]


def test_secret_gives_where_a_secret_may_begin() -> None:
    openings = Openings([rule(NAMED)])
    assert openings.secret(b"my pass", 0) == 7
    assert openings.secret(b"my pass = ab1", 0) == 10
    assert openings.secret(b"my pass = ab1 ", 0) == 14


def test_secret_when_its_context_begins_inside_a_word_then_what_precedes_is_seen() -> None:
    assert Openings([rule(r"\Ba=(?P<secret>[a-z]{6})", boundary="anywhere")]).secret(b"ba=bc", 1) == 3


def test_secret_when_several_lead_there_then_it_is_the_first() -> None:
    openings = Openings([rule(r"far .{0,40}near (?P<secret>[a-z]{6})"), rule(r"AT (?P<secret>[a-z ]{9})")])
    assert openings.secret(b"far AT near ab", 0) == 6


@pytest.mark.parametrize(
    ("pattern", "least", "leads"),
    [
        (KEY, 24, False),
        (NAMED, 6, True),
        (r"a(?:(?P<secret>b)|c)d", 0, False),
        (r"a(?P<secret>b{3})c", 3, True),
        (r"a?(?P<secret>b{3})c", 3, False),
    ],
)
def test_least_secret_and_lead_of_a_rule(pattern: str, least: int, leads: bool) -> None:
    assert least_secret(rule(pattern)) == least
    assert has_lead(rule(pattern)) is leads


def gate(rules: list[Rule]) -> Gate:
    return Gate(map(openings_module.gate, rules))


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ([{"pattern": "(?i)alpha-[a-z]{9}"}], "it is Xkey-k2j4h5g6"),
        ([{"pattern": "ends$|near[0-9]{3}", "gate": patterns.NEAR_WORD + "end|r[0-9]"}], "it is xnear123"),
    ],
    ids=["flags", "alternatives"],
)
def test_near_matches_wherever_a_rule_does_whatever_the_others_are(others: list[dict[str, str]], text: str) -> None:
    """Their flags are their own, as is how they begin."""
    wanted = [rule(**other, boundary="anywhere") for other in others]
    near = Openings([*wanted, rule("[^a-z]key-[a-z0-9]{8}", boundary="anywhere")]).near()
    assert Gate([near]).hits(text.encode())


def test_gates_of_numbers_begin_where_a_word_does_as_their_patterns_do() -> None:
    assert (
        rules.read_document(rules.SHIPPED)["parts"]["start"]
        == patterns.NEAR_WORD
        == patterns.opened(patterns.NEAR_WORD)
    )
    numbers = [rule for rule in rules.load().rules if rule.boundary == "number" or rule.id == "payment-card-named"]
    words = "".join(random.Random(1).choices("0123456789abcdef", k=9000))
    hexadecimal = " ".join(f"{'abcdef'[at % 6]}{words[at : at + 63]}" for at in range(0, len(words), 63))
    assert gate(numbers).hits(hexadecimal.encode()) in (None, [])


def test_gates_of_names_look_for_them_where_their_patterns_do() -> None:
    gates = {rule.id: gate([rule]) for rule in rules.load().rules}
    assert not gates["phone-number-named"].hits(b"an intel 80486 recalls 415 867-5309")
    assert gates["phone-number-named"].hits(b"tel 415 867-5309")
    assert not gates["assigned-secret"].hits(b"sorted(x, key=by1) or { key: 1 }")
    assert gates["assigned-secret"].hits(b"openai - key=by1")
    assert not gates["assigned-uuid"].hits(b"check the id = 123e4567-e89b-12d3-a456-426614174000")
    assert not gates["email-role-address"].hits(b"    @app.route.get\n")


def test_gates_do_not_begin_with_common_parts_of_words() -> None:
    """Each of these lists would take states for most words of a text, and large texts 15 % more time."""
    shipped = {rule.id: rule for rule in rules.load().rules}
    for name in ("assigned-secret", "assigned-uuid", "named-value-pair", "email-role-address"):
        for word in ("private", "service", "account", "exa|", "support"):
            assert word not in shipped[name].gate


def test_start_when_compiled_in_parts_then_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = [each for each in rules.load().rules if has_lead(each)]
    parts, whole = Openings(shipped), Openings(shipped)
    assert len(parts.endings) > 3 and max(ending.size for ending in parts.endings) <= gates_module.MUCH
    monkeypatch.setattr(openings_module, "in_parts", lambda patterns: [list(patterns)])
    assert len(whole.endings) == 2
    chance = random.Random(3)
    examples = [example for each in shipped for example in each.match]
    for example in chance.sample(examples, 60):
        data = f"it says {example[: chance.randrange(len(example))]}".encode()
        assert parts.start(data, 0) == whole.start(data, 0)


def test_endings_in_words_find_nothing_that_has_a_blank() -> None:
    openings = Openings(
        [rule(r"a[\s-]b{9}"), rule("key-[a-z]{20}"), rule("x.{9}"), rule("(?:z|y y){9}"), rule("[^;]k{9}")]
    )
    assert (openings.in_words, len(openings.endings)) == (1, 2)
    in_words, others = openings.endings
    for text, start in (("a key-ab", 2), ("key- a", 6), ("a ", 2), ("x y", 3)):
        assert in_words.start(text.encode(), 0) == start
    assert others.start(b"a ", 0) == 0


def test_begun_tells_of_each_part_whether_something_is_open_there() -> None:
    shipped = [each for each in rules.load().rules if not has_lead(each)]
    openings = Openings(shipped)
    begun = Gate(openings.begun())
    assert len(openings.endings) == len(begun.patterns) > 2
    chance = random.Random(4)
    for example in chance.sample([example for each in shipped for example in each.match], 60):
        data = f"it says {example[: chance.randrange(len(example))]}".encode()
        is_open = [index for index, ending in enumerate(openings.endings) if ending.start(data, 0) < len(data)]
        assert set(is_open) <= set(begun.hits(data))


def test_gate_begins_at_a_word_exactly_if_its_own_text_does() -> None:
    for each in rules.load().rules:
        tree = prefixes.parse(patterns.opened(each.pattern))
        assert prefixes.begins_with_word(tree) == prefixes.begins_with_word(prefixes.parse(each.pattern))
