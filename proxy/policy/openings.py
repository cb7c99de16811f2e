"""Where a text that continues is still undecided: the first position from which some rule could still find something.

    text so far    please use ghp_R4nd0mB
                              ^ open: everything that begins before is decided, with the result of the complete text

The rules of a group are searched together, in one pattern of their prefix closures. Long repeats are loosened (see
`proxy.policy.prefixes`), so a position may count as open longer than necessary, never too short. If the open part grows
long, `settled` looks closer: no match takes more bytes than its pattern is wide, so only matches in that many last
bytes can be undecided.

A rule with a group `secret` hides only the secret, so the context before it need not wait: `secret` returns where an
undecided secret may begin. For each rule it searches for a context that ends before the end, then for the longest
suffix that could be its secret: possibly too much, never too little.

Cost: `start` and `secret` take 1 to 2 microseconds, whatever the length of the text before the open part.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.policy import boundaries, patterns, prefixes
from proxy.policy.automata import Ending, Gate
from proxy.policy.prefixes import Group
from proxy.policy.rules import SECRET_GROUP, Rule

_PART_MEMORY: Final = 8 << 20
_LEFT: Final = rf"(?:\b|{boundaries.ESCAPES})_?"


class Openings:
    """The closures of a group of rules. Any thread may use it: at worst, two compile the same."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        trees = [prefixes.parse(rule.pattern) for rule in rules]
        openings = [_opening(rule, tree) for rule, tree in zip(rules, trees, strict=True)]
        begun = [
            _left(rule, tree) + prefixes.begun(prefixes.loosened(tree)) for rule, tree in zip(rules, trees, strict=True)
        ]
        self.begun = f"(?:{'|'.join(begun)})\\z"
        """Matches if `opening` finds anything, for a `Gate`."""
        self.opening = Ending(openings)
        """The possible beginnings of an unfinished match, with their left context."""
        self._by_reach = _by_reach(trees, openings)
        splits = [split for tree in trees if (split := prefixes.split_at(prefixes.loosened(tree), SECRET_GROUP))]
        self.led = f"(?:{'|'.join(lead + prefixes.begun(rest) for lead, rest in splits)})\\z"
        """Matches if part of a secret follows its context, for a `Gate`."""
        self._leads = Gate(f"(?:{lead}{prefixes.closure(rest)})\\z" for lead, rest in splits) if splits else None
        self._secrets = [prefixes.closure(rest) for _, rest in splits]
        self._asked: dict[int, Ending] = {}
        """Of `_secrets`, those that were needed: few ever are, and each takes memory."""

    def start(self, data: bytes, at: int) -> int:
        """Return the first position from `at` on where a match may begin that `data` does not decide."""
        return max(at, self.opening.start(data, max(0, at - boundaries.REACH)))

    def settled(self, data: bytes, at: int) -> int:
        """Return the same for a long open part."""
        first = size = len(data)
        for reach, opening in self._by_reach:
            first = min(first, opening.start(data, max(0, at - boundaries.REACH, size - reach)))
        return max(at, first)

    def secret(self, data: bytes, at: int) -> int:
        """Return where the first undecided secret may begin, of matches that begin at or after `at`.

        Only for rules with a context.
        """
        size = len(data)
        if self._leads is None:
            return size
        return min([self._secret(index).start(data, at) for index in self._leads.hits(data[at:])], default=size)

    def _secret(self, index: int) -> Ending:
        """Return what the secret of one rule may begin with."""
        found = self._asked.get(index)
        if found is None:
            found = self._asked[index] = Ending([self._secrets[index]])
        return found


def gate(rules: Iterable[Rule], others: Iterable[str] = ()) -> Gate:
    """Return the gate that tells in one pass which rules can match in a text. `others`: further patterns to search for.

    If a rule begins with a word, its gate does too: base64 has few words, so few states are built (20 x the speed).
    """
    return Gate([*map(_gate, rules), *others])


def gate_part(rules: Iterable[Rule]) -> Gate:
    """Return a gate for some of many rules, with its share of the memory."""
    return Gate(map(_gate, rules), _PART_MEMORY)


def at_words(rule: Rule) -> str:
    """Return a pattern for the matches of `rule` where a word begins, with what precedes; empty if others count, too.

    A match of it that begins with a letter or a digit is one of the rule's pattern, with the same groups.
    """
    left = _left(rule, prefixes.parse(rule.pattern))
    return left and f"{left}(?:{rule.pattern})"


def has_lead(rule: Rule) -> bool:
    """Tell whether the secret of `rule` is always preceded by context that need not be held back."""
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, SECRET_GROUP)
    return split is not None and prefixes.width(tree)[0] > prefixes.width(split[1])[0]


def least_secret(rule: Rule) -> int:
    """Return the least number of characters hidden by a finding of `rule`; 0 if unknown."""
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, SECRET_GROUP)
    if split is None:
        return 0 if f"<{SECRET_GROUP}>" in rule.pattern else prefixes.width(tree)[0]
    return prefixes.width(split[1].branches[0][0])[0]


def _gate(rule: Rule) -> str:
    is_own = rule.gate != patterns.opened(rule.pattern)
    return rule.gate if is_own else _left(rule, prefixes.parse(rule.gate)) + rule.gate


def shared(rule: Rule) -> tuple[str, str]:
    """Return what `rule` adds to the automata that are compiled of many rules."""
    return _gate(rule), _opening(rule, prefixes.parse(rule.pattern))


def _opening(rule: Rule, tree: Group) -> str:
    return _left(rule, tree) + prefixes.closure(prefixes.loosened(tree))


def _left(rule: Rule, tree: Group) -> str:
    """Return the left context of a match of `tree`, as pattern text."""
    return _LEFT if rule.boundary not in boundaries.INSIDE_WORDS and prefixes.begins_with_word(tree) else ""


def _by_reach(trees: list[Group], openings: list[str]) -> list[tuple[int, Ending]]:
    """Return a few combined closures, each with the maximum byte width of its matches, including left context."""
    classes: dict[int, tuple[int, list[str]]] = {}
    for tree, opening in zip(trees, openings, strict=True):
        widest = prefixes.width(tree)[1]
        if widest is None:
            raise prefixes.UnsupportedPattern("a repeat without an upper bound")
        reach, same = classes.get(widest.bit_length() // 2, (0, []))
        classes[widest.bit_length() // 2] = max(reach, widest + boundaries.REACH), [*same, opening]
    return [(reach, Ending(same)) for reach, same in classes.values()]
