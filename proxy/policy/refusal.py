"""How a client is told that the policy stops its request: the place and the rules, never the text."""

from collections.abc import Iterable
from typing import Final

from proxy.errors import PolicyViolation
from proxy.findings import Category, Sighting

MAX_RULES: Final = 16
_WHAT: Final[dict[Category, str]] = {
    "secret": "what looks like a secret",
    "pii": "what looks like personal data",
    "keyword": "a blocked keyword",
    "command": "a dangerous command",
}


def violation(first: Sighting, rules: Iterable[str]) -> PolicyViolation:
    """Make the error for a text that is blocked. `rules`: all rules that block, by id."""
    where = first.place or "the body"
    return PolicyViolation(
        f"The policy stops this request: {where} holds {_WHAT[first.finding.category]} ({first.finding.rule_id}).",
        param=first.place or None,
        rules=list(dict.fromkeys(rules))[:MAX_RULES],
    )


def denied(place: str, reason: str) -> PolicyViolation:
    """Make the error for a part that cannot be scanned, where such parts do not pass."""
    where = place or "a part of the body"
    return PolicyViolation(
        f"The policy stops this request: {where} cannot be scanned ({reason}), and what is not scanned does not pass.",
        param=place or None,
    )
