"""The errors for a request that the policy refuses: place and rules, never the text."""

from collections.abc import Iterable
from typing import Final

from proxy.errors import PolicyViolation
from proxy.nouns.findings import Category, Sighting

MAX_RULES: Final = 16
_WHAT: Final[dict[Category, str]] = {
    "secret": "what looks like a secret",
    "pii": "what looks like personal data",
    "keyword": "a blocked keyword",
    "command": "a dangerous command",
}


def violation(first: Sighting, rules: Iterable[str]) -> PolicyViolation:
    """Return the error for a blocked text. `rules`: ids of all rules that block it."""
    where = first.place or "the body"
    return PolicyViolation(
        f"The policy stops this request: {where} holds {_WHAT[first.finding.category]} ({first.finding.rule_id}).",
        param=first.place or None,
        rules=list(dict.fromkeys(rules))[:MAX_RULES],
    )


def denied(place: str, reason: str) -> PolicyViolation:
    """Return the error for a part that cannot be scanned, if the policy refuses such parts."""
    where = place or "a part of the body"
    return PolicyViolation(
        f"The policy stops this request: {where} cannot be scanned ({reason}), and what is not scanned does not pass.",
        param=place or None,
    )
