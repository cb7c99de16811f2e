"""What a group of rules tells of a stream as it comes."""

from typing import Any

import pytest

from proxy.policy.detect import Detector, Matcher
from proxy.policy.openings import Openings
from proxy.policy.rules import RuleSet, read_rules
from proxy.policy.stream_track import Track, Watch


def track(leads: bool = False, **entry: Any) -> Track:
    rules = RuleSet(tuple(read_rules([{"id": "r", "category": "secret", "severity": "high", **entry}])))
    return Track(Watch(Detector(rules).matchers, Openings(rules.rules), leads))


def test_advance_when_a_match_may_go_on_then_it_waits() -> None:
    keys = track(pattern="key-[a-z]{4}", alphabet="[a-z]", placeholders=False)
    assert keys.advance(b"a key-abcd", [0], False) == []
    assert keys.undecided == 2
    (found,) = keys.advance(b"a key-abcde ", [0], False)
    assert (found.start, found.end) == (2, 11)
    assert keys.undecided == 12


def test_advance_when_a_run_passes_the_limit_then_it_is_followed() -> None:
    keys = track(pattern="key-[a-z]{4}", alphabet="[a-z]", placeholders=False, max_length=10)
    data = b"a key-abcdefghijkl"
    assert keys.advance(data, [0], False) == []
    assert keys.runs[0].finding.start == 2
    assert keys.needs_from() == len(data)
    keys.shift(10)
    (found,) = keys.advance(data[10:] + b"mn.", [0], False)
    assert (found.start, found.end) == (2 - 10, len(data) + 2 - 10)
    assert keys.runs == []


def test_advance_when_a_text_ends_the_run_then_it_waits_for_all_of_it() -> None:
    rule = {"pattern": "BEGIN [a-z]{4}", "alphabet": "[A-Za-z ]", "until": "END [a-z]{0,3}", "max_length": 12}
    keys = track(**rule)
    text = b"BEGIN abcd then on and on END ab and more."
    ends = []
    for end in range(1, len(text) + 1):
        ends += [(end, found.end) for found in keys.advance(text[:end], [0], end == len(text))]
    assert ends == [(33, 32)]


def test_advance_when_beginnings_fill_a_run_then_it_is_followed_only_near_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed, follow = [], Matcher.follow

    def count(*arguments: Any, **options: Any) -> Any:
        followed.append(1)
        return follow(*arguments, **options)

    monkeypatch.setattr(Matcher, "follow", count)
    keys = track(pattern="sk-[a-z-]{4}", alphabet="[a-z-]", placeholders=False, max_length=20, allow=["[sk-]+"])
    assert keys.advance(b"sk-" * 10_000, [0], False) == []
    assert len(followed) < 10


def test_advance_when_a_context_leads_then_only_the_secret_waits() -> None:
    keys = track(leads=True, pattern=r"pass = (?P<secret>[a-z0-9]{6})", alphabet="[a-z0-9]")
    assert keys.advance(b"my pass", [], False) == []
    assert keys.undecided == 7
    assert keys.advance(b"my pass = ab", [], False) == []
    assert keys.undecided == 10
    (found,) = keys.advance(b"my pass = ab12cd.", [0], False)
    assert (found.start, found.end) == (10, 16)
