"""Where a text that continues is still undecided: the first position from which some rule could still find something.

    text so far    please use ghp_R4nd0mB
                              ^ open: everything that begins before is decided, with the result of the complete text

The rules of a group are searched together, in one pattern of their prefix closures. Long repeats are loosened (see
`proxy.policy.prefixes`), so a position may count as open longer than necessary, never too short. If the open part grows
long, or the text ends in base64, `settled` looks closer: no match takes more bytes than its pattern is wide, so only
matches in that many last bytes can be undecided. It searches for a few rules at a time, as random letters make RE2
build new states, and an automaton of a few rules has few. They are compiled when they are needed: most texts need none.

A rule with a group `secret` hides only the secret, so the context before it need not wait: `secret` returns where an
undecided secret may begin. For each rule it searches for a context that ends before the end, then for the longest
suffix that could be its secret: possibly too much, never too little.

Cost: `start` and `secret` take 1 to 2 microseconds, whatever the length of the text before the open part.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxy.policy import boundaries, patterns, prefixes
from proxy.policy.automata import Ending, Gate
from proxy.policy.prefixes import Group
from proxy.policy.rules import SECRET_GROUP, Rule
from proxy.way import MAIN

_PART_MEMORY: Final = 8 << 20
_FEW: Final = 8
"""Rules of one automaton of a closer look. Of 16, a look at base64 takes half as long again; of four, as long."""
_MUCH: Final = 20_000
"""Characters of patterns that are compiled at once: 5 ms."""
_MUCH_OF_GATE: Final = 45_000
"""The same for a gate: 10 to 20 ms. The shipped rules are 30,000, and what may be open in them 75,000."""
_LEFT: Final = rf"(?:\b|{boundaries.ESCAPES})_?"


class Openings:
    """The closures of a group of rules. Any thread may use it: at worst, two compile the same."""

    def __init__(self, rules: Sequence[Rule], *, in_parts: bool = False) -> None:
        """`in_parts`: compile `opening` in several calls; then only `start` and `settled` see all of it."""
        trees = [prefixes.parse(rule.pattern) for rule in rules]
        openings = [_opening(rule, tree) for rule, tree in zip(rules, trees, strict=True)]
        begun = [
            _left(rule, tree) + prefixes.begun(prefixes.loosened(tree)) for rule, tree in zip(rules, trees, strict=True)
        ]
        self.begun = f"(?:{'|'.join(begun)})\\z"
        """Matches if `opening` finds anything, for a `Gate`."""
        self.opening, *self._others = map(Ending, _parts(openings) if in_parts else [openings])
        """The possible beginnings of an unfinished match, with their left context."""
        self._closer = _closer(trees, openings)
        """The same for a few rules at a time, with the maximum byte width of their matches, including left context."""
        self._compiled: dict[int, Ending] = {}
        """Of those, the ones that were needed, by index."""
        splits = [split for tree in trees if (split := prefixes.split_at(prefixes.loosened(tree), SECRET_GROUP))]
        self.led = f"(?:{'|'.join(lead + prefixes.begun(rest) for lead, rest in splits)})\\z"
        """Matches if part of a secret follows its context, for a `Gate`."""
        self._leads = Gate(f"(?:{lead}{prefixes.closure(rest)})\\z" for lead, rest in splits) if splits else None
        self._secrets = [prefixes.closure(rest) for _, rest in splits]
        self._asked: dict[int, Ending] = {}
        """Of `_secrets`, those that were needed: few ever are, and each takes memory."""

    def start(self, data: bytes, at: int) -> int:
        """Return the first position from `at` on where a match may begin that `data` does not decide."""
        before = max(0, at - boundaries.REACH)
        first = self.opening.start(data, before)
        for other in self._others:
            found = other.start(data, before)
            first = found if found < first else first
        return max(at, first)

    def settled(self, data: bytes, at: int) -> int:
        """Return the same for a long open part, which `start` takes long for; on the event loop `at`, until all
        `is_prepared`."""
        if not self.is_prepared:
            if threading.get_ident() == MAIN:
                return at
            self.prepare(sys.maxsize)
        first = size = len(data)
        for index, (reach, _) in enumerate(self._closer):
            found = self._compiled[index].start(data, max(0, at - boundaries.REACH, size - reach))
            first = found if found < first else first
        return max(at, first)

    @property
    def is_prepared(self) -> bool:
        """True once all automata of a closer look are compiled."""
        return len(self._compiled) == len(self._closer)

    def prepare(self, most: int = _MUCH) -> None:
        """Compile automata of a closer look, `most` characters of patterns at once: some milliseconds' worth."""
        done = 0
        for index, (_, openings) in enumerate(self._closer):
            if index not in self._compiled:
                size = sum(map(len, openings))
                if done and done + size > most:
                    return
                self._compiled[index] = Ending(openings)
                done += size

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


def _parts(openings: list[str], much: int = _MUCH) -> list[list[str]]:
    """Return patterns in groups that RE2 compiles soon each: for all of 88,000 characters it keeps the interpreter for
    70 ms, as the time grows with their square."""
    parts: list[list[str]] = [[]]
    size = 0
    for opening in openings:
        size += len(opening)
        if size > much and parts[-1]:
            parts.append([])
            size = len(opening)
        parts[-1].append(opening)
    return parts


def gate(rules: Iterable[Rule], others: Iterable[str] = ()) -> Gate:
    """Return the gate that tells in one pass which rules can match in a text. `others`: further patterns to search for.

    If a rule begins with a word, its gate does too: base64 has few words, so few states are built (20 x the speed).
    """
    return Gate([*map(_gate, rules), *others])


def gate_in_parts(rules: Iterable[Rule], others: Iterable[str]) -> Callable[[bytes], list[int]]:
    """Return the same as the `hits` of `gate`, compiled in calls of 10 to 20 ms; each part takes a pass of its own."""
    parts = _parts([*map(_gate, rules), *others], _MUCH_OF_GATE)
    gates = [(Gate(part).hits, sum(map(len, parts[:at]))) for at, part in enumerate(parts)]
    (first_hits, _), *further = gates

    def hits(data: bytes) -> list[int]:
        found = first_hits(data)
        for others_hits, first in further:
            for index in others_hits(data):
                found.append(first + index)
        return found

    return hits


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


def opening_size(rule: Rule) -> int:
    """Return how long the pattern is that `rule` adds to what may be open."""
    return len(_opening(rule, prefixes.parse(rule.pattern)))


def shared(rule: Rule) -> tuple[str, str]:
    """Return what `rule` adds to the automata that are compiled of many rules."""
    return _gate(rule), _opening(rule, prefixes.parse(rule.pattern))


def _opening(rule: Rule, tree: Group) -> str:
    return _left(rule, tree) + prefixes.closure(prefixes.loosened(tree))


def _left(rule: Rule, tree: Group) -> str:
    """Return the left context of a match of `tree`, as pattern text."""
    return _LEFT if rule.boundary not in boundaries.INSIDE_WORDS and prefixes.begins_with_word(tree) else ""


def _closer(trees: list[Group], openings: list[str]) -> list[tuple[int, list[str]]]:
    """Return closures of a few rules at a time, those of similar width together, and how far they reach."""
    widths: list[int] = []
    for tree in trees:
        widest = prefixes.width(tree)[1]
        if widest is None:
            raise prefixes.UnsupportedPattern("a repeat without an upper bound")
        widths.append(widest)
    parts: list[list[int]] = []
    for index in sorted(range(len(widths)), key=widths.__getitem__):
        part = parts[-1] if parts else []
        size = sum(len(openings[one]) for one in (*part, index))
        is_full = not part or len(part) == _FEW or size > _MUCH
        if is_full or widths[index] > 2 * widths[part[0]] + boundaries.REACH:
            parts.append([index])
        else:
            part.append(index)
    return [(widths[part[-1]] + boundaries.REACH, [openings[index] for index in part]) for part in parts]
