"""Finds matches that stand close together with Python's `re`: lists of numbers, telephone numbers, mail addresses.

    RE2   2.5 microseconds per match, 2.5 nanoseconds per byte      fast for a match here and there: nearly every text
    re    0.5 microseconds per match,  20 nanoseconds per byte      fast for a match in every line

So after many matches in a row, the text is read in blocks by `re`, until a block has few. Both engines give the same
spans: only patterns of plain ASCII parts are used this way, and for these both define a match alike (leftmost, first
alternative). Blocks with an escape, behind which a word may begin unseen by `re`, are left to RE2.

Rule of the file: which engine reads a text never changes what is found. `re` has no bound on its time, so a block that
takes too long is the last one that it reads of a text.

Source: https://github.com/google/re2/wiki/Syntax, https://docs.python.org/3/library/re.html
"""

import re
from collections.abc import Iterator
from itertools import repeat
from typing import Final

from proxy.policy import boundaries, prefixes, validators
from proxy.policy.automata import Automaton
from proxy.policy.prefixes import Atom, Group, Node, Repeat
from proxy.policy.rules import SECRET_GROUP, Rule

_CLOSE: Final = 128
"""The mean distance in bytes up to which `re` is the faster one."""
BLOCK: Final = 4096
TOO_LONG_S: Final = 0.01
"""Of CPU, for a block and the verdicts on its matches; usual ones take 0.2 to 1 ms."""
_HIDDEN: Final = Automaton(rf"{boundaries.ESCAPES}|\b_")
"""What a word may begin after that is itself part of a word."""
_PLAIN: Final = re.compile(r"[^\\.{}]|\\[^\w\s]|\[(?!\^)(?:(?!--)[^\\\[&|~])+\]", re.ASCII)
"""Parts of patterns that mean the same to both: characters, classes of them, escaped marks."""


def compiled(rule: Rule) -> re.Pattern[bytes] | None:
    """Return the pattern of a rule for `re`, at the beginning of a word; `None` if it may mean something else there.

    Group 1 is the match, those of the rule follow. Nothing is consumed, so matches inside others are found as well.
    """
    pattern = rule.pattern
    if rule.boundary in boundaries.INSIDE_WORDS or "(?<" in pattern or not pattern.isascii():
        return None
    tree = prefixes.parse(pattern)
    if not _is_plain(tree):
        return None
    edge = r"\b" if prefixes.begins_with_word(tree) else r"(?<!\w)"
    return re.compile(f"{edge}(?=({pattern}))".encode())


class Crowds:
    """Reads the matches of `rule` in blocks. `pattern`: from `compiled`; `reach`: the most bytes of a match."""

    def __init__(self, rule: Rule, pattern: re.Pattern[bytes], reach: int) -> None:
        self._pattern = pattern
        self._reach = reach
        self._secret = pattern.groupindex.get(SECRET_GROUP, 1)
        sees_match = (rule.exact or not rule.alphabet) and reach <= rule.max_length
        sifts = [validators.SIFTS[name] for name in rule.validators if name in validators.SIFTS and sees_match]
        self._sift = sifts[0] if sifts else None
        """Drops most of many matches at once; `None` if the validators may see another text than the match."""

    def begins(self, data: bytes, first: int, count: int, at: int) -> bool:
        """Tell whether a block may be read at `at`: `count` matches since `first` were close, and nothing is hidden."""
        if at - first > count * _CLOSE:
            return False
        end = min(at + BLOCK, len(data))
        return _HIDDEN.search(data, max(0, at - boundaries.REACH), end) is None

    def block(self, data: bytes, at: int) -> Iterator[tuple[re.Match[bytes], bool]]:
        """Yield the matches from `at` on, group 1 each, and whether they could be findings.

        Those that begin after `BLOCK` bytes may be incomplete.
        """
        found = self._pattern.finditer(data, at, at + BLOCK + self._reach)
        if self._sift is None:
            return zip(found, repeat(True))
        matches = list(found)
        return zip(matches, self._sift([match[self._secret] for match in matches]), strict=True)


def _is_plain(node: Node) -> bool:
    """Tell whether both find the same: no flags, no conditions, no part that is not ASCII, no repeat of nothing."""
    match node:
        case Atom(text):
            return _PLAIN.fullmatch(text) is not None
        case Group(opening, branches):
            return opening == "(?:" and all(_is_plain(part) for branch in branches for part in branch)
        case Repeat(inner):
            return prefixes.width(inner)[0] > 0 and _is_plain(inner)
        case _:
            return False
