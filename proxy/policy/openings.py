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

import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import islice
from typing import Final

from proxy.event_loop.fair_threads import MAIN
from proxy.policy import boundaries, patterns, prefixes
from proxy.policy.automata import Automaton, Ending
from proxy.policy.gates import MUCH, Gates, Search, in_parts
from proxy.policy.prefixes import Group
from proxy.policy.rules import SECRET_GROUP, Rule

_FEW: Final = 8
"""Rules of one automaton of a closer look. Of 16, a look at base64 takes half as long again; of four, as long."""
_AT_A_GLANCE: Final = 8
"""Repetitions that a first look asks for, of which an automaton is quickly compiled; a gate tells for sure."""
_AT_ONCE: Final = MUCH // 2
"""Characters of patterns that the event loop compiles in a turn, for a search forwards and backwards."""


class Openings:
    """The closures of a group of rules. Any thread may use it: at worst, two compile the same."""

    def __init__(self, rules: Sequence[Rule], gates: Gates | None = None, *, whole: bool = False) -> None:
        """`gates`: of the process, `None` if nothing is shared. `whole`: compile what `start` needs in one call, if the
        process does not serve yet: numbers and short words begin something in several parts, for 2 us each."""
        self._rules = sorted(rules, key=_may_hold_blank)
        self._gates = gates or Gates()
        self._whole = whole and not self._gates.is_serving

    @cached_property
    def _openings(self) -> list[str]:
        """What may be open of each rule, with its left context."""
        return [_opening(rule, tree) for rule, tree in zip(self._rules, self._trees(), strict=True)]

    @cached_property
    def endings(self) -> list[Ending]:
        """The possible beginnings of an unfinished match; of some rules each, first those of `in_words`."""
        return [Ending(part) for part in self._in_words + self._across_blanks]

    @property
    def in_words(self) -> int:
        """How many of `endings` find nothing that has a blank in it."""
        return len(self._in_words)

    @cached_property
    def _in_words(self) -> list[list[str]]:
        return self._parts(blanks=False)

    @cached_property
    def _across_blanks(self) -> list[list[str]]:
        return self._parts(blanks=True)

    def _parts(self, *, blanks: bool) -> list[list[str]]:
        pairs = zip(self._rules, self._openings, strict=True)
        openings = [opening for rule, opening in pairs if _may_hold_blank(rule) == blanks]
        if not openings:
            return []
        return [openings] if self._whole else in_parts(openings)

    @cached_property
    def _closer(self) -> list[tuple[int, Ending]]:
        """The same for fewer rules at a time, with the maximum byte width of their matches, including left context."""
        return [(reach, Ending(part)) for reach, part in _closer(self._rules, self._openings)]

    @cached_property
    def _splits(self) -> list[tuple[str, Group]]:
        """The context of each rule that has one, and what follows it."""
        splits = [prefixes.split_at(prefixes.loosened(tree), SECRET_GROUP) for tree in self._trees()]
        return [split for split in splits if split is not None]

    @cached_property
    def _leads(self) -> Search:
        """What tells of which rules a secret follows its context."""
        leads = [f"(?:{lead}{prefixes.closure(rest)})\\z" for lead, rest in self._splits]
        return self._gates.search("leads", leads)

    @cached_property
    def _secrets(self) -> list[Ending]:
        """The secrets of the same rules. Few are ever compiled."""
        return [Ending([prefixes.closure(rest)]) for _, rest in self._splits]

    def _trees(self) -> list[Group]:
        return [prefixes.parse(rule.pattern) for rule in self._rules]

    def begun(self) -> list[str]:
        """Return for each of `endings` a pattern that matches if it finds anything, for a gate."""
        pairs = zip(self._rules, self._trees(), strict=True)
        begun = iter([_left(rule, tree) + prefixes.begun(prefixes.loosened(tree)) for rule, tree in pairs])
        return [patterns.at_end(islice(begun, ending.count)) for ending in self.endings]

    def near(self) -> str:
        """Return a pattern that matches wherever one of the rules may, for a glance."""
        return patterns.any_of([patterns.opened(gate(rule), _AT_A_GLANCE) for rule in self._rules], patterns.NEAR_WORD)

    def led(self) -> list[str]:
        """Return patterns one of which matches if a rule may, or if part of a secret follows its context at the end."""
        wholes = [prefixes.split_at(tree, SECRET_GROUP) for tree in self._trees()]
        secrets = [patterns.opened(prefixes.source(whole[1])) for whole in wholes if whole is not None]
        pairs = zip(self._splits, secrets, strict=True)
        return [f"{lead}(?:{prefixes.begun(rest)}\\z|{secret})" for (lead, rest), secret in pairs]

    def compile_whole(self, *, leads: bool) -> None:
        """Compile what takes one long call. `leads`: rules with a context, for which `secret` is asked."""
        if self._whole:
            for ending in self.endings:
                ending.find  # noqa: B018 - compiled forwards; backwards when it is used, which keeps nobody
        if leads:
            self._leads.hits(b"")

    def compile(self) -> None:
        """Compile what `start` needs, and read the patterns for all else: it is compiled when it is needed."""
        for ending in self.endings:
            ending.compile()
        self._closer, self._secrets  # noqa: B018

    def start(self, data: bytes, at: int) -> int:
        """Return the first position from `at` on where a match may begin that `data` does not decide."""
        before = max(0, at - boundaries.REACH)
        return max(at, min([ending.start(data, before) for ending in self.endings]))

    def settled(self, data: bytes, at: int) -> int:
        """Return the same for a long open part, which `start` takes long for; on the event loop `at`, until all
        `is_prepared`."""
        if threading.get_ident() == MAIN and not self.is_prepared:
            return at
        first = size = len(data)
        for reach, ending in self._closer:
            found = ending.start(data, max(0, at - boundaries.REACH, size - reach))
            first = found if found < first else first
        return max(at, first)

    @property
    def is_prepared(self) -> bool:
        """True once all automata of a closer look are compiled."""
        return all([ending.is_compiled for _, ending in self._closer])

    def prepare(self) -> None:
        """Compile some automata of a closer look: some milliseconds' worth."""
        done = 0
        for _, ending in self._closer:
            if not ending.is_compiled:
                done += ending.size
                if done > _AT_ONCE and done > ending.size:
                    return
                ending.compile()

    def secret(self, data: bytes, at: int) -> int:
        """Return where the first undecided secret may begin, of matches that begin at or after `at`.

        Only for rules with a context.
        """
        seen = data[max(0, at - boundaries.REACH) :]  # as `\B` looks at what precedes
        found = [self._secrets[index].start(data, at) for index in self._leads.hits(seen)]
        return min(found, default=len(data))


def gate(rule: Rule) -> str:
    """Return the pattern that tells whether `rule` can match in a text, for a gate of many rules.

    If a rule begins with a word, this does too: base64 has few words, so few states are built (20 x the speed).
    """
    is_own = rule.gate != patterns.opened(rule.pattern)
    # Opened or not, it begins alike; to read all gates as well would take 20 ms before a process listens.
    begins = not is_own and _left(rule, prefixes.parse(rule.pattern))
    # In a group of its own, as what surrounds it must not share its flags or be one of its alternatives.
    return f"{patterns.NEAR_WORD if begins else ''}(?:{rule.gate})"


def at_words(rule: Rule) -> str:
    """Return a pattern for the matches of `rule` where a word begins, with what precedes; empty if others count, too.

    A match of it that begins with a letter or a digit is one of the rule's pattern, with the same groups.
    """
    left = _left(rule, prefixes.parse(rule.pattern))
    return left and f"{left}(?:{rule.pattern})"


def has_lead(rule: Rule) -> bool:
    """Tell whether the secret of `rule` is always preceded by context that need not be held back."""
    split = prefixes.split_at(prefixes.parse(rule.pattern), SECRET_GROUP)
    return split is not None and prefixes.width_of(rule.pattern)[0] > prefixes.width(split[1])[0]


def least_secret(rule: Rule) -> int:
    """Return the least number of characters hidden by a finding of `rule`; 0 if unknown."""
    tree = prefixes.parse(rule.pattern)
    split = prefixes.split_at(tree, SECRET_GROUP)
    if split is None:
        return 0 if f"<{SECRET_GROUP}>" in rule.pattern else prefixes.width_of(rule.pattern)[0]
    return prefixes.width(split[1].branches[0][0])[0]


def shared(rule: Rule) -> tuple[str, str]:
    """Return what `rule` adds to the automata that are compiled of many rules."""
    return gate(rule), _opening(rule, prefixes.parse(rule.pattern))


def _may_hold_blank(rule: Rule) -> bool:
    """Tell whether a match of `rule` may have a blank in it; those that have none lie behind the last blank."""
    return any(_is_blank(text) for text in prefixes.atoms(prefixes.parse(rule.pattern)))


@lru_cache(maxsize=1024)
def _is_blank(atom: str) -> bool:
    return atom == " " or ((len(atom) > 1 or atom == ".") and Automaton(atom).accepts(b" "))


def _opening(rule: Rule, tree: Group) -> str:
    return _left(rule, tree) + prefixes.closure(prefixes.loosened(tree))


def _left(rule: Rule, tree: Group) -> str:
    """Return the left context of a match of `tree`, as pattern text."""
    return patterns.AT_WORD if rule.boundary not in boundaries.INSIDE_WORDS and prefixes.begins_with_word(tree) else ""


def _closer(rules: Sequence[Rule], openings: list[str]) -> list[tuple[int, list[str]]]:
    """Return closures of a few rules at a time, those of similar width together, and how far they reach."""
    widths: list[int] = []
    for rule in rules:
        widest = prefixes.width_of(rule.pattern)[1]
        if widest is None:
            raise prefixes.UnsupportedPattern("a repeat without an upper bound")
        widths.append(widest)
    parts: list[list[int]] = []
    for index in sorted(range(len(widths)), key=widths.__getitem__):
        part = parts[-1] if parts else []
        size = sum(len(openings[one]) for one in (*part, index))
        is_full = not part or len(part) == _FEW or size > MUCH
        if is_full or widths[index] > 2 * widths[part[0]] + boundaries.REACH:
            parts.append([index])
        else:
            part.append(index)
    return [(widths[part[-1]] + boundaries.REACH, [openings[index] for index in part]) for part in parts]
