"""A token goes on through escapes and lines of strings, and ends where masking it leaves JSON of any depth valid."""

import json
import random

import pytest

from proxy.nouns.findings import Finding
from proxy.policy import examples, mask, rules
from proxy.policy.detect import Detector, Matcher
from proxy.policy.extent import before_escape, behind_escape, extent
from proxy.policy.rules import Rule
from proxy.policy.stream_json import JsonScanner
from proxy.policy.stream_scan import StreamPlan

SHIPPED = rules.load()
DETECTOR = Detector(SHIPPED)
PLAN = StreamPlan(DETECTOR, lambda finding: "redact")
LINES = examples.expand("{B64} {B64} {B40}==", "lines").split()
HEAD = "-----BEGIN PRIVATE KEY-----"
END = "-----END PRIVATE KEY-----"
STARS = mask.STARS
ABSK = "ABSK" + examples.expand("{A90}", "absk")


def pieces_of(text: str, chance: random.Random) -> list[str]:
    cuts = sorted(chance.sample(range(1, len(text)), min(len(text) - 1, chance.randrange(1, 40))))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def streamed(text: str, pieces: list[str]) -> str:
    scanner = PLAN.scanner()
    out = [scanner.feed(piece) for piece in pieces]
    return "".join([*out, scanner.flush()])


def written(value: object, chance: random.Random) -> str:
    """Return JSON in one of the forms in which encoders write it."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, None, 1]))
    if chance.random() < 0.3:
        return text.replace("/", "\\/")
    if chance.random() < 0.3:
        return text.replace("+", "\\u002b").replace("=", "\\u003d").replace("&", "\\u0026").replace("'", "\\u0027")
    return text


def nested(secret: str, depth: int, chance: random.Random) -> str:
    documents: list[object] = [
        {"k": secret, "n": 5},
        {"l": [secret], "b": True},
        {"k": secret + ",", "certificateOfHost": "x"},
        {"a": "x " + secret, "b": ["certificateOfHost", 1]},
        [[secret, "name"], {secret: 1, "o": {"q": secret}}],
    ]
    text = written(chance.choice(documents), chance)
    for _ in range(depth - 1):
        text = written({"inner": text, "n": 1}, chance)
    return text


def is_valid(text: str, depth: int) -> bool:
    try:
        for _ in range(depth - 1):
            text = json.loads(text)["inner"]
        json.loads(text)
    except (ValueError, KeyError, TypeError):
        return False
    return True


@pytest.mark.parametrize("rule", SHIPPED.rules, ids=lambda rule: rule.id)
def test_json_in_json_stays_valid_with_masks_of_any_rule_at_any_depth_and_cutting(rule: Rule) -> None:
    chance = random.Random(rule.id)
    for example in rule.match:
        secret = examples.expand(example, rule.id)
        if chance.random() < 0.3:  # cut off: without the end of a key, for example
            secret = secret[: chance.randrange(len(secret) * 2 // 3, len(secret))]
        depth = chance.randrange(1, 5)
        text = nested(secret, depth, chance)
        assert is_valid(text, depth)
        masked = mask.redact(text, DETECTOR.find(text))
        assert is_valid(masked, depth)
        assert streamed(text, pieces_of(text, chance)) == masked
        scanner = JsonScanner(PLAN)
        as_json = [piece.text for part in (text, None) for piece in scanner.pieces(part or "", part is None)]
        assert is_valid("".join(as_json), depth)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'"{{\\"k\\": \\"{ABSK}\\"}}"', f'"{{\\"k\\": \\"ABSK{STARS}\\"}}"'),
        (f"{ABSK}\\/Qk\\u002bz\\u003d\\n", f"ABSK{STARS}\\n"),
        (f"{ABSK}\\\\\\/Qk\\\\", f"ABSK{STARS}\\\\"),
        (f"{ABSK}\\u0022, x", f"ABSK{STARS}\\u0022, x"),
        (f"{ABSK}\\u", f"ABSK{STARS}\\u"),
        (f"{ABSK}" + "\\" * 9 + "/Qk", f"ABSK{STARS}" + "\\" * 9 + "/Qk"),
    ],
    ids=["JSON in JSON", "slash, plus", "deeper", "an escaped quote", "the text ends", "too deep"],
)
def test_token_goes_on_through_escapes_of_its_own_characters_only(text: str, expected: str) -> None:
    assert mask.redact(text, DETECTOR.find(text)) == expected
    assert streamed(text, list(text)) == expected
    for cut in range(len(text)):
        assert streamed(text, [text[:cut], text[cut:]]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'k = "{HEAD}\\n" +\n  "{LINES[0]}\\n" +\n  "{LINES[2]}\\n" +\n  "{END}";', f'k = "----{STARS}";'),
        (f"k = ['{HEAD}', '{LINES[0]}', '{LINES[2]}']", f"k = ['----{STARS}']"),
        (f'["{HEAD}", "{LINES[0]}", "{LINES[1]}", "name"]', f'["----{STARS}"]'),
        (f'+ "{HEAD}\\n"\n+ "{LINES[0]}\\n"\n12 | "{LINES[1]}\\n"', f'+ "----{STARS}"'),
        (f'{{"k": "{HEAD}\\n{LINES[0]}", "name": "a"}}', f'{{"k": "----{STARS}", "name": "a"}}'),
        (f'{{"k": "{HEAD}\\n{LINES[0]}", "a_b": "a"}}', f'{{"k": "----{STARS}", "a_b": "a"}}'),
        (f'{{"k": "{HEAD}\\n{LINES[0]}", "b"  : "a"}}', f'{{"k": "----{STARS}", "b"  : "a"}}'),
        (f'{{"k": "{HEAD}\\n{LINES[0]}", "b"{" " * 20}: "a"}}', f'{{"k": "----{STARS}", "b"{" " * 20}: "a"}}'),
        (f'"{{\\"k\\": \\"{HEAD}\\\\n{LINES[0]}\\"}}"', f'"{{\\"k\\": \\"----{STARS}\\"}}"'),
        (f'"[\\"{HEAD}\\", \\"{LINES[0]}\\", \\"{LINES[1]}\\"]"', f'"[\\"----{STARS}\\"]"'),
        (f'["{HEAD}\\n{LINES[0]}", "-----EN', f'["----{STARS}", "-----EN'),
        (f'["{HEAD}\\n{LINES[0]}", "{LINES[1]}', f'["----{STARS}'),
        (f'["{HEAD}\\n{LINES[0]}", "{"A" * 150}"]', f'["----{STARS}"]'),
        (f'["{HEAD}\\n{LINES[0]}", "{"a" * 128}_", "{"a" * 128}"]', f'["----{STARS}", "{"a" * 128}_", "{"a" * 128}"]'),
        (f'["{HEAD}\\n{LINES[0]}"{" " * 80}, "{LINES[1]}"]', f'["----{STARS}"{" " * 80}, "{LINES[1]}"]'),
    ],
    ids=[
        "joined in code",
        "a list in code",
        "a list",
        "a diff and a listing",
        "the next member",
        "a name with a mark",
        "space before the colon",
        "much of it",
        "JSON in JSON",
        "a list in JSON in JSON",
        "the end ends",
        "a line ends",
        "a line longer than any name",
        "no line of a key",
        "far apart",
    ],
)
def test_key_goes_on_through_lines_in_strings_and_ends_before_the_next_member(text: str, expected: str) -> None:
    assert mask.redact(text, DETECTOR.find(text)) == expected
    assert streamed(text, list(text)) == expected
    for cut in range(len(text)):
        assert streamed(text, [text[:cut], text[cut:]]) == expected


@pytest.mark.parametrize(
    ("before", "between", "behind"),
    [
        ("echo '", "' >> /tmp/k.pem\necho '", "' >> /tmp/k.pem"),
        ('key += "', '\\n"\nkey += "', '\\n"'),
        ('key.append("', '\\n");\nkey.append("', '\\n");'),
        ('lines[0] = "', '"\nlines[1] = "', '"'),
        ("key = '", "' + '\\n' +\n'", "'"),
        ("key = '", "' + \"\\n\" +\n'", "'"),
        ("key = (b'", "\\n'\n  b'", "\\n')"),
        ('// "', '"\n// "', '"'),
        ('09:00:01 "', '"\n09:00:02 "', '"'),
        ('{"source": ["k = (\'', "\\\\n'\\n\", \"'", "\\\\n')\"]}"),
    ],
    ids=[
        "a shell",
        "added",
        "a call",
        "an index",
        "a break",
        "another quote",
        "bytes",
        "a comment",
        "a log",
        "a notebook",
    ],
)
def test_key_goes_on_through_lines_in_code(before: str, between: str, behind: str) -> None:
    text = before + between.join([HEAD, *LINES, END]) + behind + " and so on"
    masked = mask.redact(text, DETECTOR.find(text))
    assert masked == before + "----" + STARS + behind + " and so on"
    assert streamed(text, list(text)) == masked
    for cut in range(len(text)):
        assert streamed(text, [text[:cut], text[cut:]]) == masked


@pytest.mark.parametrize("size", range(58, 70))
def test_key_ends_where_the_next_line_is_too_far_away_however_it_is_cut(size: int) -> None:
    text = f'["{HEAD}\\n{LINES[0]}"{" " * size}"{LINES[1]}", "x"]'
    masked = mask.redact(text, DETECTOR.find(text))
    assert (LINES[1] in masked) == (size > 63)
    for cut in range(len(text)):
        assert streamed(text, [text[:cut], text[cut:]]) == masked


@pytest.mark.parametrize(
    ("begun", "between", "waiting", "told"),
    [
        (ABSK, "", ["\\"], '", and'),
        (ABSK, "", ["\\\\u00", "2"], "2 and"),
        (f"{HEAD}\n{LINES[0]}", "\n", ['"', ", ", '"na'], 'me_of": 1'),
        (f"{HEAD}\n{LINES[0]}", "\n", ["\\", '"', ", \\"], '"name_of\\": 1'),
    ],
    ids=["a backslash", "an escape", "a member", "a member in JSON in JSON"],
)
def test_text_behind_a_mask_waits_only_while_it_may_belong_to_the_token(
    begun: str, between: str, waiting: list[str], told: str
) -> None:
    scanner = PLAN.scanner()
    out = scanner.feed(begun)
    for _ in range(40):
        out += scanner.feed(LINES[1] + between)
    assert out.endswith(STARS)
    assert not scanner.held
    for held in waiting:
        assert scanner.feed(held) == ""
    assert scanner.feed(told + " and so on, ") == "".join(waiting) + told + " and so on, "
    assert not scanner.held


def test_match_without_an_alphabet_ends_before_an_escape_that_it_would_cut() -> None:
    assert before_escape(b"del C:\\", 0, 7) == 6
    assert before_escape(b"del C:\\\\u00e4", 0, 10) == 6
    assert before_escape(b"del C:\\u00e4", 0, 12) == 12
    assert before_escape(b"\\\\", 0, 2) == 1
    assert behind_escape(b"a\\u002b5p", 5) == 7
    assert behind_escape(b"a\\u002b5p", 2) == 7
    assert behind_escape(b"a\\u002b5p", 7) == 7
    assert behind_escape(b"C:\\u5xyz", 4) == 4
    assert behind_escape(b"abc", 2) == 2


@pytest.mark.parametrize(("alphabet", "end"), [(r"[a-z\\]", 3), (r"[\\]", 0), ("[^ ]", 8), ("", 0)])
def test_backslash_in_any_alphabet_stands_for_escapes(alphabet: str, end: int) -> None:
    found = extent(alphabet)
    assert (found.reach(b'abc\\/def" x', 0, 11).end if found else 0) == end


def test_findings_are_equal_whether_a_rule_sees_the_text_whole_or_cut() -> None:
    (rule,) = [rule for rule in SHIPPED.rules if rule.id == "model-provider-key"]
    data = f'{ABSK}\\/Qk\\", "x'.encode()
    (found,) = Matcher(rule).matches(data)
    assert found == Finding(rule.id, "secret", "high", 0, len(ABSK) + 4)
