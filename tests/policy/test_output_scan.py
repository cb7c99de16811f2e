"""One answer: a whole text and a channel say the same, and what is put on record has its action."""

import json
from types import SimpleNamespace

import pytest

from proxy.config.policy import Policy as Settings
from proxy.errors import PolicyUnavailable
from proxy.nouns.findings import Verdict
from proxy.policy import output_scan as module
from proxy.policy.output_scan import OutputScan
from tests.policy.policies import policy_of
from tests.policy.secrets import EMAIL, HIGH, SSN

TEXT = f"The key is {HIGH}, mail {EMAIL}, number {SSN}."


def scan(**settings):
    verdict = Verdict("v", 50)
    return OutputScan(policy_of(**settings), verdict, Settings(), _refuse), verdict


def _refuse(_error):
    raise PolicyUnavailable("no")


class Faulty:
    """A policy with nothing but a detector, which fails."""

    output_plan = SimpleNamespace(held=SimpleNamespace(watches=()))

    @property
    def detector(self):
        raise RuntimeError("fault")


def faulty(fault):
    return OutputScan(Faulty(), Verdict("v", 50), Settings(), fault)


@pytest.mark.parametrize("settings", [{}, {"output_actions": {"pii": "redact"}}, {"redact_secrets": False}], ids=str)
def test_whole_and_channel_when_given_the_same_text_then_they_say_the_same(settings):
    scanner, _ = scan(**settings)
    channel = scanner.channel()
    pieces = [piece.text for at in range(0, len(TEXT), 3) for piece in channel.pieces(TEXT[at : at + 3])]
    pieces += [piece.text for piece in channel.pieces("", final=True)]
    whole = scanner.whole(TEXT)
    assert "".join(pieces) == whole.text
    assert sorted(f.rule_id for f in channel.findings) == sorted(f.rule_id for f in whole.findings)
    assert (HIGH in whole.text) == (settings == {"redact_secrets": False})


def test_whole_when_clean_then_it_is_the_same_object():
    scanner, _ = scan()
    assert scanner.whole("nothing here").text == "nothing here"


def test_whole_when_a_rule_blocks_then_it_says_so():
    scanner, _ = scan(output_actions={"secret": "block"})
    blocked = scanner.whole(TEXT).blocked
    assert blocked is not None and blocked.rule_id == "github-token"


def test_whole_and_channel_when_the_text_is_json_then_it_stays_json():
    scanner, _ = scan()
    text = json.dumps({"text": f"{TEXT}\\", "n": 1}).replace("ghp_", "gh\\u0070_")
    channel = scanner.channel("json")
    pieces = [piece.text for letter in text for piece in channel.pieces(letter)]
    pieces += [piece.text for piece in channel.pieces("", final=True)]
    whole = scanner.whole(text, "json")
    assert "".join(pieces) == whole.text
    assert HIGH not in json.loads(whole.text)["text"]
    assert scanner.whole('{"a": 1}', "json") == ('{"a": 1}', [], None)


def test_edits_when_everything_is_only_flagged_then_nothing_waits():
    assert scan()[0].edits is True
    assert scan(redact_secrets=False)[0].edits is False


def test_found_missed_and_saw_when_told_then_the_verdict_has_them():
    scanner, verdict = scan()
    assert verdict.scanned_characters == {"output": 0}
    scanner.found("choices[0].content", scanner.whole(TEXT).findings)
    scanner.missed("audio", "media")
    scanner.saw(7)
    assert verdict.counts["output", "github-token", "redact"] == 1
    assert verdict.missed == {("output", "media"): 1}
    assert verdict.scanned_characters == {"output": 7}


@pytest.mark.parametrize(
    ("texts", "is_clean"),
    [
        ([], True),
        (["nothing here", "sk-"], True),
        (["nothing here", TEXT], False),
        (["x" * 20_000], False),
    ],
    ids=["none", "clean", "found", "too large"],
)
def test_texts_when_looked_at_together_then_only_clean_ones_are_called_clean(texts, is_clean):
    scanner, verdict = scan()
    assert scanner.is_clean(texts) is is_clean
    assert not verdict.counts


def test_texts_when_a_glance_takes_long_then_they_are_not_called_clean(monkeypatch):
    scanner, _ = scan()
    monkeypatch.setattr(module, "USUAL_S", -1.0)
    assert not scanner.is_clean(["so many words " * 200])


def test_scanner_when_it_fails_and_nothing_unscanned_may_pass_then_nothing_does():
    scanner = faulty(_refuse)
    for kind in ("text", "json"):
        with pytest.raises(PolicyUnavailable):
            scanner.whole("some", kind)
    assert not scanner.is_clean(["some"])


def test_scanner_when_it_fails_and_that_is_only_counted_then_the_text_goes_on():
    faults = []
    scanner = faulty(faults.append)
    assert (scanner.whole("some").text, scanner.is_clean(["some"]), len(faults)) == ("some", False, 1)
