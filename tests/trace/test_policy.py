"""How a verdict reads in a trace."""

from proxy.nouns.findings import Finding, Sighting, Unscanned, Verdict
from proxy.trace.policy import policy_of


def test_policy_when_nothing_was_found_then_it_says_what_was_scanned_by_what():
    verdict = Verdict("v1", 10)
    verdict.saw("prompt", 12)
    assert policy_of(verdict) == {"version": "v1", "scanned": {"prompt": 12}}


def test_policy_when_the_exchange_ended_before_then_there_is_none():
    assert policy_of(None) is None


def test_policy_when_things_were_found_then_they_are_described_and_the_rest_counted():
    verdict = Verdict("v1", 1, faults=1)
    for _ in range(3):
        verdict.add(Sighting(Finding("ssn", "pii", "high", 3, 14), "block", "prompt", "messages[0].content"))
        verdict.miss(Unscanned("prompt", "file", "binary"))
    assert policy_of(verdict) == {
        "version": "v1",
        "scanned": {},
        "findings": [
            {
                "rule": "ssn",
                "category": "pii",
                "severity": "high",
                "action": "block",
                "direction": "prompt",
                "place": "messages[0].content",
                "start": 3,
                "end": 14,
            }
        ],
        "moreFindings": 2,
        "unscanned": [{"direction": "prompt", "place": "file", "reason": "binary"}],
        "moreUnscanned": 2,
        "faults": 1,
    }
