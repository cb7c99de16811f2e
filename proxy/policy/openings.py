"""Where a text that goes on is still undecided: the first place from which some rule could still find something.

    text so far    please use ghp_R4nd0mB
                              ^ open: whatever begins before is known, with the same result as in the whole text

A group of rules is asked at once, in one pattern made of their prefix closures. Long repeats are loosened (see
`proxy.policy.prefixes`), so a place may be called open a little longer than need be, never too short. Where the open
part grows long, `settled` looks once more: no match takes more bytes than its pattern is wide, so only the last ones of
these can belong to one that is not decided.

A rule with the group `secret` in one place hides nothing but the secret, so what leads to it need not wait: `secret`
tells where a secret may begin that is not decided. It asks for a lead that ends somewhere before the end, then for the
longest ending that could be a secret, of any rule: a little too much, never too little.

Cost: `start` and `secret` 1 to 2 microseconds, whatever the length of the text before the open part.
"""

from collections.abc import Sequence
from typing import Final

import re2

from proxy.policy import boundaries, patterns, prefixes
from proxy.policy.prefixes import Group
from proxy.policy.rules import SECRET_GROUP, Rule

_LEFT: Final = rf"(?:\b|{boundaries.ESCAPES})"
_MAX_MEMORY: Final = 64 << 20


class Openings:
    """The closures of a group of rules. Immutable once built, so any thread may use it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        trees = [(rule, prefixes.parse(rule.pattern)) for rule in rules]
        self._closure = _at_end([_opening(rule, tree) for rule, tree in trees])
        self._by_reach = _by_reach(trees)
        splits = [split for _, tree in trees if (split := prefixes.split_at(prefixes.loosened(tree), SECRET_GROUP))]
        self._lead = _at_end([lead + prefixes.closure(rest) for lead, rest in splits], or_empty=False)
        self._secret = _at_end([prefixes.closure(rest) for _, rest in splits])

    def start(self, data: bytes, at: int) -> int:
        """Return the first place from `at` on where a match may begin that `data` does not decide."""
        first: int = self._closure.search(data, max(0, at - boundaries.REACH)).start()
        return max(at, first)

    def settled(self, data: bytes, at: int) -> int:
        """Return the same where the open part is long."""
        first = size = len(data)
        for reach, closure in self._by_reach:
            first = min(first, closure.search(data, max(0, at - boundaries.REACH, size - reach)).start())
        return max(at, first)

    def secret(self, data: bytes, at: int) -> int:
        """Return where the first secret may begin that `data` does not decide, of matches that begin at `at` or later.

        Only for rules that have a lead.
        """
        if self._lead.search(data, at) is None:
            return len(data)
        first: int = self._secret.search(data, at).start()
        return first


def has_lead(rule: Rule) -> bool:
    """Tell whether the secret of `rule` has context before it that need not be held back."""
    return prefixes.split_at(prefixes.parse(rule.pattern), SECRET_GROUP) is not None


def least_secret(rule: Rule) -> int:
    """Return the least number of characters that are hidden when `rule` finds something; 0 where it is not known."""
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, SECRET_GROUP)
    if split is None:
        return 0 if f"<{SECRET_GROUP}>" in rule.pattern else prefixes.width(tree)[0]
    return prefixes.width(split[1].branches[0][0])[0]


def _opening(rule: Rule, tree: Group) -> str:
    left = _LEFT if rule.boundary not in boundaries.INSIDE_WORDS and prefixes.begins_with_word(tree) else ""
    return left + prefixes.closure(prefixes.loosened(tree))


def _by_reach(trees: list[tuple[Rule, Group]]) -> list[tuple[int, "re2._Regexp"]]:
    """Return one closure per power of two of bytes that a match may take, with what stands before it."""
    by_reach: dict[int, list[str]] = {}
    for rule, tree in trees:
        widest = prefixes.width(tree)[1]
        if widest is None:
            raise prefixes.UnsupportedPattern("a repeat without an upper bound")
        reach = 1 << (widest + boundaries.REACH).bit_length()
        by_reach.setdefault(reach, []).append(_opening(rule, tree))
    return [(reach, _at_end(closures)) for reach, closures in sorted(by_reach.items())]


def _at_end(closures: list[str], or_empty: bool = True) -> "re2._Regexp":
    options = patterns.options()
    options.max_mem = _MAX_MEMORY
    return re2.compile(f"(?:{'|'.join([*closures, ''] if or_empty else closures)})\\z".encode(), options)
