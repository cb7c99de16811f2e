"""Where a text that goes on is still undecided: the first place from which some rule could still find something.

    text so far    please use ghp_R4nd0mB
                              ^ undecided: whatever begins before is known, with the same result as in the whole text

A group of rules is asked at once, in one pattern made of their prefix closures. Long repeats are loosened (see
`proxy.policy.prefixes`), so a place may be called undecided a little longer than need be, never too short. Where the
open part grows long, `settled` looks once more: no match takes more bytes than its pattern is wide, so only the last
ones of these can belong to one that is not decided. What then still goes on is the run of an accepted token.

A rule with the group `secret` holds back nothing but the secret: `secret` tells where that begins.

Cost: `start` 1 to 2 microseconds, whatever the length of the text before the open part.
"""

from collections.abc import Sequence
from typing import Final

import re2

from proxy.policy import boundaries, patterns, prefixes
from proxy.policy.detect import Matcher
from proxy.policy.prefixes import Group
from proxy.policy.rules import SECRET_GROUP, Rule

_LEFT: Final = (
    r"(?:\b|\\[nrtbfv0]|\\u00[0-7][0-9a-fA-F]|\\x[0-7][0-9a-fA-F]|%(?:25)?[0-7][0-9a-fA-F]|\x1b\[[0-9;]{0,4}m)"
)
_MAX_MEMORY: Final = 64 << 20


class Openings:
    """The closures of a group of rules. Immutable once built, so any thread may use it."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        trees = [(matcher.rule, prefixes.parse(matcher.rule.pattern)) for matcher in matchers]
        self.least = min((prefixes.width(tree)[0] for _, tree in trees), default=0)
        """No match has fewer characters."""
        self._closure = _at_end([_opening(rule, tree, with_run=True) for rule, tree in trees])
        self._by_reach = _by_reach(trees)
        leads = [lead for rule, tree in trees if (lead := _lead(rule, tree))]
        self._lead = _at_end(leads) if leads else None

    def start(self, data: bytes, at: int) -> int:
        """Return the first place from `at` on where a match may begin that `data` does not decide."""
        found = self._closure.search(data, max(0, at - boundaries.REACH))
        return max(at, found.start()) if found else len(data)

    def settled(self, data: bytes, at: int) -> int:
        """Return the same where the open part is long. A token whose run alone goes on is no longer undecided."""
        size = len(data)
        first = size
        for reach, closure in self._by_reach:
            found = closure.search(data, max(0, at - boundaries.REACH, size - reach))
            first = min(first, max(at, found.start())) if found else first
        return first

    def secret(self, data: bytes, at: int) -> int:
        """Return where the first secret begins that `data` does not decide, of rules with context before it."""
        found = self._lead.search(data, max(0, at - boundaries.REACH)) if self._lead else None
        if found is None:
            return len(data)
        return next((start for start, _ in map(found.span, range(1, found.re.groups + 1)) if start >= 0), len(data))


def has_lead(rule: Rule) -> bool:
    """Tell whether the secret of `rule` has context before it that need not be held back."""
    return _lead(rule, prefixes.parse(rule.pattern)) is not None


def least_secret(rule: Rule) -> int:
    """Return the least number of characters that are hidden when `rule` finds something; 0 where it is not known."""
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, SECRET_GROUP)
    if split is None:
        return 0 if f"<{SECRET_GROUP}>" in rule.pattern else prefixes.width(tree)[0]
    return prefixes.width(split[1].branches[0][0])[0]


def _opening(rule: Rule, tree: Group, with_run: bool) -> str:
    free = prefixes.loosened(tree)
    left = _LEFT if rule.boundary != "anywhere" and prefixes.begins_with_word(tree) else ""
    if not with_run or not rule.alphabet or rule.until:
        return left + prefixes.closure(free)
    split = prefixes.split_at(free, SECRET_GROUP)
    followed = split[0] + _first(split[1]) if split else prefixes.source(free)
    return f"{left}(?:{prefixes.closure(free)}|{followed}{rule.alphabet}*)"


def _lead(rule: Rule, tree: Group) -> str | None:
    """Return the pattern that ends inside the secret of `rule`, which it captures; `None` where nothing leads to it."""
    split = prefixes.split_at(prefixes.loosened(tree), SECRET_GROUP)
    if split is None:
        return None
    lead, rest = split
    run = f"|{_first(rest)}{rule.alphabet}*" if rule.alphabet and not rule.until else ""
    return f"{lead}({prefixes.closure(rest)}{run})"


def _first(rest: Group) -> str:
    """Return the secret itself, without what the pattern wants after it."""
    return prefixes.source(Group(rest.opening, (rest.branches[0][:1],)))


def _by_reach(trees: list[tuple[Rule, Group]]) -> list[tuple[int, "re2._Regexp"]]:
    """Return one closure per power of two of bytes that a match may take."""
    by_reach: dict[int, list[str]] = {}
    for rule, tree in trees:
        widest = prefixes.width(tree)[1] or patterns.OPEN_REPEAT
        reach = 1 << (widest + 1 + boundaries.REACH).bit_length()
        by_reach.setdefault(reach, []).append(_opening(rule, tree, with_run=False))
    return [(reach, _at_end(closures)) for reach, closures in sorted(by_reach.items())]


def _at_end(closures: list[str]) -> "re2._Regexp":
    options = patterns.options()
    options.max_mem = _MAX_MEMORY
    return re2.compile(f"(?:{'|'.join(closures)}|)\\z".encode(), options)
