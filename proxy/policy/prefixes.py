"""The prefix closure of a pattern: a second pattern that matches every beginning of what the first one matches.

A stream may be split anywhere, so a scanner must know whether its text ends inside something that could still become a
match. Anchored at the end of the text, the closure answers that: its leftmost match is the longest suffix that could.
RE2 runs such a pattern backwards from the end and stops at the first impossible character, so the cost depends on the
length of the open suffix and not on that of the text.

    pattern      sk-[a-z]{3}                     what it matches: sk-abc
    closure      (?:s(?:k(?:-[a-z]{0,3})?)?)?    also s, sk, sk-, sk-a, sk-ab, and the empty text

The closure is derived from the pattern's text. The parser supports the part of RE2's syntax that rules need and copies
opaque parts (classes, escapes) unchanged; anything else is rejected with the reason, so that no rule can be loaded
whose prefixes are unknown.

Source: https://github.com/google/re2/wiki/Syntax
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\(?:x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,6}\}|[pP](?:[A-Z]|\{\^?\w+\})|[dDsSwWnrtfvabBAz]|[^\w\s])", re.ASCII
)
_CLASS: Final = re.compile(r"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\\\]])*\]", re.DOTALL)
_REPEAT: Final = re.compile(r"(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??")
_OPENING: Final = re.compile(r"\((?:\?(?:P?<(?P<name>\w+)>|(?P<flags>[imsU]*(?:-[imsU]+)?):))?")
_FLAGS: Final = re.compile(r"\(\?[imsU-]+\)")
_ASCII_ATOM: Final = re.compile(r"[\x00-\x2d\x2f-\x7f]|\[(?!\^)(?:\\[^DSWpPx]|[\x00-\x5a\x5e-\x7f])+\]|\\[^DSWpPx]")
_WORD_ATOM: Final = re.compile(r"[A-Za-z0-9_]|\[(?:[A-Za-z0-9_]|[A-Za-z0-9]-[A-Za-z0-9]|\\[dw])+\]|\\[dw]")
_ZERO_WIDTH: Final = ("\\b", "\\B", "\\A", "\\z", "^", "$")
COUNTED: Final = 4
"""Highest count of repeats in a loosened pattern."""
_BOUNDS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class UnsupportedPattern(ValueError):
    """The pattern uses syntax whose prefixes cannot be derived; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One character: a literal, an escape or a class, as written."""

    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A condition between two characters, such as `\\b`."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Alternatives in parentheses. `opening` never captures; `name`: of the original group, empty without one."""

    opening: str
    branches: tuple["Sequence", ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """An atom or group `low` to `high` times; `high` is `None` without an upper bound."""

    node: "Atom | Group"
    low: int
    high: int | None


Node = Atom | Mark | Group | Repeat
Sequence = tuple[Node, ...]
_NOTHING: Final = Group("(?:", ((),))
"""Something repeated no times."""


@lru_cache(maxsize=1024)
def parse(pattern: str) -> Group:
    """Return the structure of `pattern`, including flags at its start. Cached, as projects share most rules.

    Raises:
        UnsupportedPattern: it contains something outside the supported part of RE2's syntax.
    """
    return _Parser(pattern).pattern()


@lru_cache(maxsize=1024)
def width_of(pattern: str) -> tuple[int, int | None]:
    """Return the `width` of a whole pattern. Cached like `parse`, and raises the same."""
    return width(parse(pattern))


def forget_patterns() -> None:
    """Drop the structures of all patterns, which only building a policy needs."""
    parse.cache_clear()
    width_of.cache_clear()


def closure(tree: Group) -> str:
    """Return a pattern for every prefix of a match of `tree`, including the empty and the complete one."""
    return _forms(tree)[1]


def begun(tree: Group) -> str:
    """Return a pattern for every non-empty prefix of a match of `tree`, including the complete one."""
    branches = (_sequence_begun(branch) for branch in tree.branches)
    return tree.opening + "|".join(filter(None, branches)) + ")"


def source(node: Node) -> str:
    """Return `node` as pattern text without capturing groups."""
    match node:
        case Atom(text) | Mark(text):
            return text
        case Group(opening, branches):
            return opening + "|".join("".join(map(source, branch)) for branch in branches) + ")"
        case Repeat(inner, low, high):
            return source(inner) + _bounds(low, high)


def split_at(tree: Group, name: str) -> tuple[str, Group] | None:
    """Split `tree` before its group `name`: the pattern text of the context, and the rest as a tree.

    `None` if the group is not a direct part of the only branch: then the context cannot be separated.
    """
    if len(tree.branches) != 1:
        return None
    (branch,) = tree.branches
    for at, node in enumerate(branch):
        if isinstance(node, Group) and node.name == name:
            lead = Group(tree.opening, (branch[:at],))
            return source(lead), Group(tree.opening, (branch[at:],))
    return None


def loosened(tree: Group) -> Group:
    """Return `tree` with its longer repeats (more than `COUNTED` times) made unlimited.

    A superset. Every counted repeat costs a state per count, in every combination; without them the automaton stays
    small enough to be built once, for any text.
    """
    return Group(tree.opening, tuple(tuple(map(_loosened, branch)) for branch in tree.branches), tree.name)


def width(node: Node) -> tuple[int, int | None]:
    """Return the least number of characters and the greatest number of UTF-8 bytes that `node` matches.

    The greatest is `None` if unlimited. A character counts as four bytes unless it is certain to be ASCII.
    """
    return _width(node, False)


def begins_with_word(tree: Group) -> bool:
    """Tell whether every match begins with an ASCII letter, a digit or an underscore."""
    return all(branch and _is_word(branch[0]) for branch in tree.branches)


def atoms(node: Node) -> Iterator[str]:
    """Yield the texts of the characters that a match of `node` may consist of."""
    match node:
        case Atom(text):
            yield text
        case Group(_, branches):
            for branch in branches:
                for part in branch:
                    yield from atoms(part)
        case Repeat(inner):
            yield from atoms(inner)


def _loosened(node: Node) -> Node:
    match node:
        case Group():
            return loosened(node)
        case Repeat(inner, low, high):
            free = high is None or high > COUNTED
            body = loosened(inner) if isinstance(inner, Group) else inner
            return Repeat(body, min(low, 1), None) if free else Repeat(body, low, high)
        case _:
            return node


def _width(node: Node, folds: bool) -> tuple[int, int | None]:
    match node:
        case Atom(text):
            return 1, 4 if folds or not _ASCII_ATOM.fullmatch(text) else 1
        case Mark():
            return 0, 0
        case Group(opening, branches):
            folds = folds or "i" in opening
            widths = [_sum([_width(part, folds) for part in branch]) for branch in branches]
            highs = [high for _, high in widths if high is not None]
            return min(low for low, _ in widths), max(highs) if len(highs) == len(widths) else None
        case Repeat(inner, low, high):
            least, greatest = _width(inner, folds)
            return least * low, None if greatest is None or high is None else greatest * high


def _sum(widths: list[tuple[int, int | None]]) -> tuple[int, int | None]:
    highs = [high for _, high in widths if high is not None]
    return sum(low for low, _ in widths), sum(highs) if len(highs) == len(widths) else None


def _is_word(node: Node) -> bool:
    match node:
        case Atom(text):
            return _WORD_ATOM.fullmatch(text) is not None
        case Group():
            return begins_with_word(node)
        case Repeat(inner, low, _):
            return low > 0 and _is_word(inner)
        case _:
            return False


def _forms(node: Node) -> tuple[str, str]:
    """Return the `source` of `node` and a pattern for every prefix: in one go, as each level needs those below it."""
    match node:
        case Atom(text):
            return text, f"{text}?"
        case Mark(text):
            return text, ""
        case Group(opening, branches):
            forms = [_sequence_forms(branch) for branch in branches]
            whole, begun = "|".join([form[0] for form in forms]), "|".join([form[1] for form in forms])
            return f"{opening}{whole})", f"{opening}{begun})"
        case Repeat(Atom(text), low, high):
            return text + _bounds(low, high), text + _bounds(0, high)
        case Repeat(inner, low, high):
            whole, begun = _forms(inner)
            fewer = None if high is None else max(high - 1, 0)
            return whole + _bounds(low, high), whole + _bounds(0, fewer) + begun


def _sequence_forms(nodes: Sequence) -> tuple[str, str]:
    """Build from the end: the prefixes of `a b` are those of `a`, and `a` followed by those of `b`."""
    written, rest = "", ""
    for node in reversed(nodes):
        whole, begun = _forms(node)
        written = whole + written
        match node:
            case Atom(text):
                rest = f"(?:{text}{rest})?"
            case Mark(text):
                rest = f"(?:{text}{rest})?" if rest else ""
            case Repeat(Atom(), 0, _):
                rest = whole + rest
            case Repeat(Atom(), 1, _):
                rest = f"(?:{whole}{rest})?"
            case Repeat(Atom(text), low, _):
                rest = f"(?:{text}{_bounds(0, low - 1)}|{whole}{rest})"
            case _:
                rest = f"(?:{begun}|{whole}{rest})"
    return written, rest


def _sequence_begun(nodes: Sequence) -> str:
    """Return the same for a sequence, as alternatives: some of its first node, or of the next if it is optional."""
    if not nodes:
        return ""
    node, following = nodes[0], nodes[1:]
    rest = _sequence_forms(following)[1]
    match node:
        case Atom(text):
            return text + rest
        case Mark(text):
            later = _sequence_begun(following)
            return f"{text}(?:{later})" if later else ""
        case Group():
            return f"{begun(node)}|{source(node)}{rest}"
        case Repeat(Atom(text), low, high):
            ways = [text + _bounds(1, low - 1)] if low > 1 else []
        case Repeat(Group() as inner, low, high):
            ways = [source(inner) + _bounds(0, None if high is None else max(high - 1, 0)) + begun(inner)]
    ways.append(source(node.node) + _bounds(max(low, 1), high) + rest)
    if low == 0:
        ways.append(_sequence_begun(following))
    return "|".join(filter(None, ways))


def _bounds(low: int, high: int | None) -> str:
    if high is None:
        return {0: "*", 1: "+"}.get(low, f"{{{low},}}")
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def pattern(self) -> Group:
        opening = "(?:"
        if flags := _FLAGS.match(self._pattern):
            self._at = flags.end()
            opening = flags[0][:-1] + ":"
        branches = self._branches()
        if self._at != len(self._pattern):
            raise self._refused("a closing parenthesis without its opening one")
        return Group(opening, branches)

    def _branches(self) -> tuple[Sequence, ...]:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return tuple(branches)

    def _sequence(self) -> Sequence:
        nodes: list[Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            nodes.append(self._repeated(self._single()))
        return tuple(nodes)

    def _repeated(self, node: Node) -> Node:
        found = _REPEAT.match(self._pattern, self._at)
        if found is None:
            return node
        if isinstance(node, Mark | Repeat):
            raise self._refused("a repeat of something without width")
        self._at = found.end()
        symbol, least, comma, most = found.groups()
        low, high = _BOUNDS[symbol] if symbol else (int(least), int(most) if most else None if comma else int(least))
        if _REPEAT.match(self._pattern, self._at):
            raise self._refused("a repeat of a repeat")
        return Repeat(node, low, high) if high != 0 else _NOTHING

    def _single(self) -> Node:
        head = self._pattern[self._at]
        if head == "(":
            return self._group()
        if head == "[":
            return Atom(self._matched(_CLASS, "a class that does not end"))
        if head == "\\":
            text = self._matched(_ESCAPE, "an escape that rules may not use")
            return Mark(text) if text in _ZERO_WIDTH else Atom(text)
        if head in "*+?":
            raise self._refused("a repeat of nothing")
        self._at += 1
        return Mark(head) if head in _ZERO_WIDTH else Atom(head)

    def _group(self) -> Group:
        opening = _OPENING.match(self._pattern, self._at)
        if opening is None or _FLAGS.match(self._pattern, self._at):
            raise self._refused("flags or a group that rules may not use here")
        self._at = opening.end()
        branches = self._branches()
        if not self._take(")"):
            raise self._refused("a group that does not end")
        flags, name = opening["flags"], opening["name"]
        return Group(f"(?{flags or ''}:", branches, name or ("" if flags is None else None))

    def _matched(self, expected: re.Pattern[str], otherwise: str) -> str:
        found = expected.match(self._pattern, self._at)
        if found is None:
            raise self._refused(otherwise)
        self._at = found.end()
        return found[0]

    def _take(self, character: str) -> bool:
        if not self._pattern.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def _refused(self, reason: str) -> UnsupportedPattern:
        return UnsupportedPattern(f"{reason}, at character {self._at + 1} of the pattern")
