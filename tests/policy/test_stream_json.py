"""A document in fragments: what strings mean is scanned, what is written stays a document, however it is cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.nouns.findings import Action, Finding
from proxy.policy import examples, mask, rules
from proxy.policy.detect import Detector
from proxy.policy.found import place
from proxy.policy.places import lead
from proxy.policy.rules import RuleSet, read_rules
from proxy.policy.stream_json import JsonScanner
from proxy.policy.stream_scan import StreamPlan

SHIPPED = Detector(rules.load())
PLAN = StreamPlan(SHIPPED, lambda finding: "redact")
KEY = examples.expand("sk-proj-{U60}T3BlbkFJ{U60}", "json")
STARS = mask.STARS


def streamed(plan: StreamPlan, deltas: list[str]) -> tuple[str, list[Finding], JsonScanner]:
    scanner = JsonScanner(plan)
    out, taken, given_in = "", 0, 0
    text = "".join(deltas)
    for delta in [*deltas, None]:
        for piece in scanner.pieces(delta or "", final=delta is None):
            assert piece.masked or piece.text == text[taken : taken + piece.taken]
            out, taken = out + piece.text, taken + piece.taken
        given_in += len(delta or "")
        assert scanner.blocked or scanner.held == given_in - taken
    assert scanner.blocked or taken == len(text)
    return out, sorted(scanner.findings, key=place), scanner


def everywhere(plan: StreamPlan, text: str) -> tuple[str, list[Finding]]:
    """Return what comes of `text`, once it was seen that no way of cutting it changes that."""
    whole = streamed(plan, [text])[:2]
    assert streamed(plan, list(text))[:2] == whole
    for cut in range(1, len(text)):
        assert streamed(plan, [text[:cut], text[cut:]])[:2] == whole
    return whole


ESCAPED = "".join(f"\\u{ord(character):04x}" for character in KEY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"note": "use {KEY}, please"}}', f'{{"note": "use sk-p{STARS}, please"}}'),
        (f'{{"note": "{ESCAPED}"}}', f'{{"note": "\\u0073\\u006b\\u002d\\u0070{STARS}"}}'),
        (f'{{"a": "x\\n{KEY}\\n"}}', f'{{"a": "x\\nsk-p{STARS}\\n"}}'),
        (f'{{"a": "x\\\\n{KEY}\\\\"}}', f'{{"a": "x\\\\nsk-p{STARS}\\\\"}}'),
        (f'[["{KEY}"], {{"{KEY}": 1}}]', f'[["sk-p{STARS}"], {{"sk-p{STARS}": 1}}]'),
        ('{"password": "Winter2024!", "x": "Winter2024!"}', f'{{"password": "Wi{STARS}", "x": "Winter2024!"}}'),
        ('{"passwords": ["Winter2024!", "Summer2025!"]}', f'{{"passwords": ["Wi{STARS}", "Su{STARS}"]}}'),
        ('{"passwords": [["x"], {"y": "z"}, "Winter2024!"]}', f'{{"passwords": [["x"], {{"y": "z"}}, "Wi{STARS}"]}}'),
        ('{"token": {"x": "a8Kd03mZq71Lx9"}}', '{"token": {"x": "a8Kd03mZq71Lx9"}}'),
        ('{"card": 4111111111111111, "n": -1.5e3}', f'{{"card": "4111{STARS}", "n": -1.5e3}}'),
        (f'"{KEY}"', f'"sk-p{STARS}"'),
        (f"run {KEY} now", f"run sk-p{STARS} now"),
        (f'{{"a": 1, b: "{KEY}"}}', f'{{"a": 1, b: "sk-p{STARS}"}}'),
        (f'{{"a": "{KEY}', f'{{"a": "sk-p{STARS}'),
        ('{"a": "\\q\\u12 \\', '{"a": "\\q\\u12 \\'),
        (' \n {"a": tru', ' \n {"a": tru'),
        ("{}" + "9" * 100, "{}" + "9" * 100),
        ("", ""),
    ],
    ids=[
        "value",
        "escaped",
        "escape before and behind",
        "escaped backslashes",
        "deep, and a key",
        "named by its key",
        "named by the key of its list",
        "named by the key of its list, behind others",
        "key of another object",
        "number",
        "one string",
        "no JSON",
        "no JSON any more",
        "cut off",
        "wrong escapes",
        "cut off in a word",
        "a number beyond reason",
        "empty",
    ],
)
def test_document_when_cut_anywhere_then_it_leaves_masked_and_whole(text: str, expected: str) -> None:
    out, findings = everywhere(PLAN, text)
    assert out == expected
    assert bool(findings) == (out != text)


def test_findings_have_their_place_in_the_raw_text() -> None:
    text = f'{{"a\\n": "\\u0020\\t{KEY[:4]}\\u{ord(KEY[4]):04x}{KEY[5:]}\\n"}}'
    _, findings = everywhere(PLAN, text)
    assert {(found.start, found.end) for found in findings} == {(text.index("sk-"), text.rindex("\\n"))}


def test_nesting_beyond_reason_is_plain_text() -> None:
    text = "[" * 5000 + f'"{KEY}"'
    assert streamed(PLAN, [text])[0] == "[" * 5000 + f'"sk-p{STARS}"'


def test_blocked_when_found_then_nothing_of_it_has_left() -> None:
    entry = {"id": "r", "category": "command", "severity": "high", "pattern": "rm\\s{1,9}-rf"}
    blocking = StreamPlan(Detector(RuleSet(tuple(read_rules([entry])))), lambda finding: "block")
    text = '{"command": "sudo rm\\t-rf /", "x": 1}'
    for cut in range(1, len(text)):
        out, findings, scanner = streamed(blocking, [text[:cut], text[cut:]])
        assert out == '{"command": "sudo '
        assert scanner.blocked == Finding("r", "command", "high", 18, 25)
        assert findings == [scanner.blocked]
        assert scanner.pieces("more") == []


def test_blocked_when_a_number_is_found_then_it_stays() -> None:
    blocking = StreamPlan(SHIPPED, lambda finding: "block")
    out, _, scanner = streamed(blocking, ['{"card": 4111111111111111, "x": 1}'])
    assert out == '{"card": '
    assert scanner.blocked is not None


SMALL = Detector(
    RuleSet(
        tuple(
            read_rules(
                [
                    {"id": "key", "category": "secret", "severity": "high", "pattern": "key-[a-z\n]{4}"}
                    | {"alphabet": "[a-z0-9\\n-]", "max_length": 24, "placeholders": False},
                    {
                        "id": "named",
                        "category": "secret",
                        "severity": "high",
                        "pattern": 'tok"{0,1}[:= ]{1,3}"?(?P<secret>[a-z0-9]{4})',
                    }
                    | {"alphabet": "[a-z0-9]", "placeholders": False},
                    {
                        "id": "digits",
                        "category": "pii",
                        "severity": "low",
                        "pattern": "[0-9]{4}",
                        "placeholders": False,
                    },
                ]
            )
        )
    )
)
ACTIONS: dict[str, Action] = {"key": "redact", "named": "redact", "digits": "flag"}
SMALL_PLAN = StreamPlan(SMALL, lambda finding: ACTIONS[finding.rule_id])
WORDS = st.lists(
    st.sampled_from(["key-", "abcd", "tok", "= ", "a1b2", "\n", '"', "\\", "é", "😀", "\ud800", "1234", " ", "/"]),
    max_size=6,
).map("".join)
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    WORDS | st.sampled_from([None, True, 1, -12345.5, 12345]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
).filter(lambda document: isinstance(document, str | list | dict))


def redacted(text: str, context: str) -> str:
    """Return what the law makes of one string, found by the detector that reads whole texts."""
    size = len(context)
    found = [found for found in SMALL.find(context + text) if found.end > size and ACTIONS[found.rule_id] == "redact"]
    return mask.redact(text, [f._replace(start=max(0, f.start - size), end=f.end - size) for f in found])


def expected(item: Any, key: str = "") -> Any:
    if isinstance(item, str):
        return redacted(item, lead(key[-64:]))
    if isinstance(item, list):
        return [expected(member, key) for member in item]
    if isinstance(item, dict):
        return [[redacted(name, ""), expected(member, name)] for name, member in item.items()]
    text = json.dumps(item)
    masked = redacted(text, lead(key[-64:]).removesuffix('"'))
    return item if text == masked or item is None or item is True else masked


@settings(max_examples=200, deadline=None)
@given(document=DOCUMENTS, ascii_=st.booleans(), cuts=st.lists(st.integers(0, 150), max_size=6))
def test_any_document_in_any_fragments_is_itself_but_for_the_masks(
    document: Any, ascii_: bool, cuts: list[int]
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    whole = streamed(SMALL_PLAN, [text])
    assert json.loads(whole[0], object_pairs_hook=lambda pairs: [list(pair) for pair in pairs]) == expected(document)
    for deltas in ([text[start:end] for start, end in itertools.pairwise(edges)], list(text)):
        assert streamed(SMALL_PLAN, deltas)[:2] == whole[:2]


@pytest.mark.parametrize("cut", [20, 60, 120])
def test_document_when_it_goes_on_after_its_end_then_only_the_rest_of_a_match_is_masked(cut: int) -> None:
    text = json.dumps({"note": f"use {KEY}", "port": 1})
    scanner: Any = JsonScanner(PLAN)
    begun = "".join(piece.text for piece in scanner.pieces(text[:cut]) + scanner.pieces("", final=True))
    scanner = scanner.resumed()
    rest = "".join(piece.text for piece in scanner.pieces(text[cut:]) + scanner.pieces("", final=True))
    assert json.loads(begun + rest)["port"] == 1
    assert KEY[cut:] not in rest and STARS in begun + rest
    assert text[cut:][8:30] not in rest
