"""Whichever way a stream is cut, what leaves is the redacted whole text, and what is found is the same."""

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.nouns.findings import Action, Finding
from proxy.policy import examples, mask, rules
from proxy.policy.detect import Detector, Matcher
from proxy.policy.found import place
from proxy.policy.gates import Gates
from proxy.policy.rules import RuleSet, read_rules
from proxy.policy.stream_scan import StreamPlan, StreamScanner

SHIPPED = Detector(rules.load())
PLAN = StreamPlan(SHIPPED, lambda finding: "redact")


def plan(*entries: dict[str, Any], action: Action = "redact") -> tuple[Detector, StreamPlan]:
    full = [{"id": f"r{n}", "category": "secret", "severity": "high", **entry} for n, entry in enumerate(entries)]
    detector = Detector(RuleSet(tuple(read_rules(full))))
    return detector, StreamPlan(detector, lambda finding: action)


def pieces_of(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


def streamed(plan: StreamPlan, deltas: Iterable[str]) -> tuple[str, list[Finding], StreamScanner]:
    scanner = plan.scanner()
    pieces = [piece for delta in deltas for piece in scanner.pieces(delta)] + scanner.pieces("", final=True)
    if scanner.blocked is None:
        assert scanner.held == 0
    return "".join(piece.text for piece in pieces), sorted(scanner.findings, key=place), scanner


def samples(seed: int) -> list[str]:
    """Return every example of the shipped rules, in random characters."""
    return [
        examples.expand(example, f"{rule.id}{seed}")
        for rule in SHIPPED.rules.rules
        for example in (*rule.match, *rule.no_match)
    ]


def test_plan_when_warmed_up_then_it_says_the_same_as_before() -> None:
    text = "so many tenants 12 password = a1b2c3D4e5 and ghp_"
    before = streamed(PLAN, pieces_of(text, 5))[:2]
    PLAN.warm_up()
    assert streamed(PLAN, pieces_of(text, 5))[:2] == before


@pytest.mark.parametrize(
    "text",
    ["Hello", "See the scheduler", "It is fine.", "the token", "return", "import asyncio\n", "for name in", "page 12"],
)
def test_words_when_only_secrets_are_hidden_then_they_leave_at_once(text: str) -> None:
    scanner = StreamPlan(SHIPPED, lambda finding: "redact" if finding.category == "secret" else "flag").scanner()
    assert scanner.feed(text) == text


@pytest.mark.parametrize(("size", "first", "step"), [(1, 0, 1), (3, 0, 2), (8, 1, 2)])
def test_streamed_examples_equal_the_redacted_whole(size: int, first: int, step: int) -> None:
    for text in samples(size)[first::step]:
        found = SHIPPED.find(text)
        output, findings, _ = streamed(PLAN, pieces_of(text, size))
        assert output == mask.redact(text, found)
        assert findings == found


@pytest.mark.parametrize("size", [1, 3, 10, 40])
@pytest.mark.parametrize(
    "text",
    ["Bearer a1B2c3D4e5F6g7H8i9J0k1 and ſsws a1B2c3D4e5F6g7H8i9J0k1L2 and", "sudo rm -rf / and ſudo rm -rf / and"],
)
def test_streamed_words_equal_the_redacted_whole_when_they_begin_with_what_is_like_a_letter(
    size: int, text: str
) -> None:
    assert streamed(PLAN, pieces_of(text, size))[0] == mask.redact(text, SHIPPED.find(text))


@pytest.mark.parametrize("size", [2, 7])
def test_take_tells_what_pieces_tells(size: int) -> None:
    for text in (*samples(size)[::5], "键 ghp_ 键盘 " * 40, "a1B2" * 200):
        short, long = PLAN.scanner(), PLAN.scanner()
        for delta in pieces_of(text, size):
            told, pieces = short.take(delta), long.pieces(delta)
            if isinstance(told, int):
                assert told == sum(piece.taken for piece in pieces)
                assert not any(piece.masked for piece in pieces)
            else:
                assert told == pieces
        assert short.pieces("", final=True) == long.pieces("", final=True)
        assert short.findings == long.findings


def test_take_when_blocked_then_nothing_follows() -> None:
    scanner = plan({"pattern": "boom"}, action="block")[1].scanner()
    assert [scanner.take("so "), scanner.take("boom "), scanner.take("and so on")] == [3, [], 0]


def test_blocked_when_found_then_nothing_of_it_has_left() -> None:
    _, blocking = plan({"pattern": "drop\\s{1,9}table\\b"}, action="block")
    for size in (1, 3, 40):
        output, findings, scanner = streamed(blocking, pieces_of("please drop  table users now", size))
        assert output == "please "
        assert scanner.blocked is not None
        assert (scanner.blocked.start, scanner.blocked.end) == (7, 18)
        assert findings == [scanner.blocked]


PARTS = st.sampled_from(
    [
        "key-",
        "abcd",
        "key-abcdefgh",
        "tok=",
        "a1b2c3",
        " ",
        "-",
        "é",
        "😀",
        "\ud800",
        "\\n",
        "END",
        "x" * 20,
        "BEGIN abc",
    ]
)
SMALL = (
    {"pattern": "key-[a-z]{4}", "alphabet": "[a-z0-9-]", "max_length": 24, "placeholders": False},
    {"pattern": r"tok\s{0,3}=\s{0,3}(?P<secret>[a-z0-9é]{4})", "alphabet": "[a-z0-9]", "max_length": 10},
    {"pattern": r"key.{0,30}?\s(?P<secret>[a-z0-9]{6})\b", "placeholders": False},
    {"pattern": "BEGIN [a-z]{3}", "alphabet": "[A-Za-z -]", "until": "END", "boundary": "anywhere", "max_length": 16},
    {"pattern": "abcd(?:efgh)?", "exact": True, "alphabet": "[a-z]", "boundary": "anywhere", "placeholders": False},
)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(PARTS, max_size=12),
    cuts=st.lists(st.integers(0, 120), max_size=8),
    hidden=st.lists(st.sampled_from(["redact", "flag", "allow"]), min_size=5, max_size=5),
)
def test_any_cutting_gives_the_redacted_whole(parts: list[str], cuts: list[int], hidden: list[Action]) -> None:
    detector, _ = SMALL_PLAN
    streams = StreamPlan(detector, lambda finding: hidden[int(finding.rule_id[1:])])
    text = "".join(parts)
    found = [finding for finding in detector.find(text) if streams.action(finding) != "allow"]
    expected = mask.redact(text, [finding for finding in found if streams.action(finding) == "redact"])
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    deltas = [text[start:end] for start, end in itertools.pairwise(edges)]
    for cutting in (deltas, list(text)):
        output, findings, _ = streamed(streams, cutting)
        assert output == expected
        assert findings == found


SMALL_PLAN = plan(*SMALL)


def test_run_of_base64_waits_for_a_closer_look_and_a_key_in_it_is_masked() -> None:
    run = "".join(random.Random(5).choices(examples._CLASSES["B"], k=1500))
    for text in (f"see {run} there", f"{run[:700]}/{examples.expand('AKIA{C16}', '7')}+{run[700:]}", f"token = {run}"):
        scanner, waiting = PLAN.scanner(), 0
        out = ""
        for delta in pieces_of(text, 7):
            out += scanner.feed(delta)
            waiting = max(waiting, scanner.held)
        assert 100 < waiting < 1200
        assert out + scanner.flush() == mask.redact(text, SHIPPED.find(text))
        assert sorted(scanner.findings, key=place) == SHIPPED.find(text)


def test_plan_when_prepared_then_what_only_long_tokens_need_is_not_compiled() -> None:
    fresh = StreamPlan(SHIPPED, lambda finding: "redact" if finding.category == "secret" else "flag")
    fresh.warm_up()
    closer = [each for watch in (*fresh.held.watches, *fresh.noted.watches) for each in watch.openings._closer]
    assert len(closer) > 10 and not any(ending.is_compiled for _, ending in closer)


def test_plan_when_it_needs_no_glances_then_it_finds_the_same() -> None:
    large = StreamPlan(SHIPPED, lambda finding: "redact" if finding.severity == "high" else "flag", glances=False)
    usual = StreamPlan(SHIPPED, lambda finding: "redact" if finding.severity == "high" else "flag")
    text = ". And ".join(random.Random(11).sample(samples(1), 40))
    for size in (9, 300):
        assert streamed(large, pieces_of(text, size))[:2] == streamed(usual, pieces_of(text, size))[:2]


@pytest.mark.parametrize("hidden", [("secret", "pii"), ("secret",)], ids=str)
def test_plan_when_it_is_compiled_while_the_process_serves_then_each_piece_leaves_as_soon_and_the_same_is_found(
    hidden: tuple[str, ...],
) -> None:
    def action(finding: Finding) -> Action:
        return "redact" if finding.category in hidden else "flag"

    gates = Gates()
    gates.begin_serving()
    usual, parts = StreamPlan(SHIPPED, action), StreamPlan(Detector(rules.load(), gates), action)
    assert len(parts.held._glance.gates) > len(usual.held._glance.gates) == 1
    text = ". And ".join(random.Random(12).sample(samples(2), 60))
    for size in (1, 4, 40):
        one, other = usual.scanner(), parts.scanner()
        for piece in pieces_of(text, size):
            assert one.feed(piece) == other.feed(piece)
        assert one.flush() == other.flush()
        assert sorted(one.findings, key=place) == sorted(other.findings, key=place)


@pytest.mark.parametrize(
    "unit",
    ["sk-proj-", "AKIA1234 ", "password=a1b2c3d4e5 ", "ann@corp.io, ", "4111 1111 1111 1111 ", "4111111111111112,"],
)
def test_text_that_repeats_itself_when_it_comes_in_large_pieces_then_little_of_it_is_judged(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    judge = Matcher.judge
    monkeypatch.setattr(
        Matcher, "judge", lambda self, data, candidate: judged.append(1) or judge(self, data, candidate)
    )
    text = f"It says {unit * 3000}and {unit * 7}{'x' * 40}"
    out, found, _ = streamed(PLAN, pieces_of(text, 20_000))
    assert found == SHIPPED.find(text) and out == mask.redact(text, found)
    assert len(judged) < 1500


@pytest.mark.parametrize("lead", ["token = ", "ghp_", "sk-proj-", "password: "])
def test_run_behind_a_mask_is_dropped_at_once_and_looked_at_rarely(lead: str) -> None:
    random_text = "".join(random.Random(5).choices("0123456789abcdef", k=4000))
    scanner, looks, sent = PLAN.scanner(), [], ""
    look = scanner._look_closely
    scanner._look_closely = lambda final: looks.append(final) or look(final)  # type: ignore[method-assign]
    for delta in pieces_of(f"see {lead}{random_text}", 4):
        sent += scanner.feed(delta)
    assert "*" in sent and scanner.held == 0 and len(looks) < 50
    sent += scanner.feed(" and so on") + scanner.flush()
    assert sent.endswith("*** and so on") and [finding.end for finding in scanner.findings][-1] == 4004 + len(lead)


def test_endless_tokens_are_masked_once_and_cost_no_memory() -> None:
    scanner = PLAN.scanner()
    out = scanner.feed("see sk-proj-")
    delta = "".join(random.Random(1).choices("abcdefgh0123456789ABC", k=64))
    for _ in range(2000):
        out += scanner.feed(delta)
        assert len(scanner._window.data) < 8192
    assert out + scanner.flush() == f"see sk-p{mask.STARS}"


@pytest.mark.parametrize("cut", [3, 8, 20, 39])
def test_text_when_it_continues_an_ended_channel_then_only_the_rest_of_a_match_is_masked(cut):
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    first = PLAN.scanner()
    begun = first.feed("see " + token[:cut]) + first.flush()
    again = first.resumed()
    rest = again.feed(token[cut:] + " and more") + again.flush()
    assert begun == "see " + token[:cut]
    assert token[cut:][5:] not in rest or len(token[cut:]) < 5
    assert rest.endswith("* and more")
    assert [(found.rule_id, found.start, found.end) for found in again.findings] == [("github-token", 4 + cut, 44)]


def test_text_when_it_continues_a_channel_that_ended_without_a_match_then_it_is_as_it_came():
    first = PLAN.scanner()
    assert first.feed("so many") + first.flush() == "so many"
    again = first.resumed()
    assert again.feed(" words") + again.flush() == " words"
