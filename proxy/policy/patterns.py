"""Pattern text: what RE2 accepts, and the two forms in which patterns are compiled.

    bounded   repeats without an upper bound get one, so that a match is decided within a known number of characters
    opened    upper bounds are dropped, and lower ones above 16. A superset of the pattern, which lets a set of many
              patterns scan random text (base64) at full speed: every counted repeat adds up to hundreds of states to
              the automaton. Without the high lower bounds it has two thirds of the instructions

Rule of the file: patterns are rewritten token by token; classes and escapes stay unchanged.

Source: https://github.com/google/re2/wiki/Syntax
"""

import re
from collections.abc import Iterable
from typing import Final

import re2

from proxy.policy import boundaries

AT_WORD: Final = rf"(?:\b|{boundaries.ESCAPES})_?"
"""Where a word may begin; see `boundaries.word`."""
NEAR_WORD: Final = r"(?:\b|(?:\\|%5[Cc])(?:[nrtbfv0]|[ux][0-9a-fA-F]+)|%[0-9a-fA-F]+|(?:\[|%5[Bb])[0-9;]*m)_?"
"""A superset of a third of the instructions, for gates: it stands before the patterns of half of all rules."""
OPEN_REPEAT: Final = 256
"""The most repetitions beyond the minimum, if a pattern has no upper bound."""
_MAX_REPEAT: Final = 1000
ENOUGH: Final = 16
"""Repetitions that a superset looks for: with 12, some random words pass for a key; with 20, nothing is gained."""

_TOKEN: Final = re.compile(
    r"\\x\{[0-9A-Fa-f]+\}|\\.|\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]|(?P<repeat>\{(?P<low>\d+)(?P<comma>,)?(?P<high>\d*)\}|[*+])|.",
    re.DOTALL,
)
_ALPHABET: Final = re.compile(r"\[(?!\^)(?:\\.|[^\]\\])+\]")
_SQL_GAP: Final = r"(?:\s{1,20}|/\*[^*]{0,60}\*/|--[^\n]{0,60}\n)"
_FEW_WORDS: Final = 4


def bounded(pattern: str) -> str:
    """Return `pattern` with an upper bound on every repeat."""
    return _TOKEN.sub(lambda token: _bound(token) if token["repeat"] else token[0], pattern)


def opened(pattern: str, enough: int = ENOUGH) -> str:
    """Return `pattern` without upper bounds on its repeats, nor lower ones above `enough`."""
    return _TOKEN.sub(lambda token: _open(token, enough) if token["repeat"] else token[0], pattern)


def any_of(patterns: Iterable[str], start: str) -> str:
    """Return a pattern for any of `patterns`; that some of them begin with `start` is said once.

    Alternatives and flags in them are in groups.
    """
    started, others = [], []
    for pattern in patterns:
        if pattern.startswith(start):
            started.append(pattern.removeprefix(start))
        else:
            others.append(pattern)
    if started:
        others.append(f"{start}(?:{'|'.join(started)})")
    return f"(?:{'|'.join(others)})"


def at_end(patterns: Iterable[str]) -> str:
    """Return a pattern for any of `patterns` at the end of a text. Alternatives in them are in groups.

    Each has an end of its own: RE2 compares every place that can be reached in a pattern with all places that lead
    there. One end of 8,000 optional letters takes as long as all else (30 ms, not 9).
    """
    return any_of([rf"{pattern}\z" for pattern in patterns], AT_WORD) + r"\z"


def keyword(words: str) -> str:
    """Return a pattern for `words` in any case, with any white space or SQL comment between words.

    A gap takes RE2 a thousand instructions for each of its pieces, so in a sentence it may have fewer.
    """
    parts = [re.escape(word) for word in words.split()]
    body = f"{_SQL_GAP}{{1,{6 if len(parts) <= _FEW_WORDS else 2}}}".join(parts)
    left = r"\b" if words[:1].isalnum() else ""
    right = r"\b" if words[-1:].isalnum() else ""
    return f"(?i){left}{body}{right}"


def wrong_pattern(pattern: str) -> str | None:
    """Return why RE2 rejects `pattern`, or `None`. Features of Python's `re` that RE2 lacks are named."""
    if re.search(r"\(\?(?:[=!]|<[=!])", pattern):
        return "uses a look-around assertion, which no linear-time engine has"
    if re.search(r"(?<!\\)\\[1-9]", pattern):
        return "uses a back-reference, which no linear-time engine has"
    try:
        compiled = re2.compile(pattern, options())
    except re2.error as error:
        return f"is not an RE2 pattern: {_reason(error)}"
    return "matches the empty text" if compiled.fullmatch("") else None


def wrong_alphabet(alphabet: str) -> str | None:
    """Return why `alphabet` is not a class of ASCII characters, or `None`."""
    if not alphabet.isascii() or not _ALPHABET.fullmatch(alphabet):
        return "must be a class of ASCII characters, such as [A-Za-z0-9_-]"
    return None


def options() -> re2.Options:
    """Return the options for exact patterns."""
    chosen = re2.Options()
    chosen.log_errors = False
    return chosen


def gate_options(max_memory: int) -> re2.Options:
    """Return the options for a set: with memory for all its states, as evicted states have to be rebuilt."""
    chosen = options()
    chosen.max_mem = max_memory
    return chosen


def _bound(token: re.Match[str]) -> str:
    if token[0] in "*+":
        return f"{{{0 if token[0] == '*' else 1},{OPEN_REPEAT}}}"
    if token["comma"] and not token["high"]:
        low = int(token["low"])
        return f"{{{low},{max(low, min(low + OPEN_REPEAT, _MAX_REPEAT))}}}"
    return token[0]


def _open(token: re.Match[str], enough: int) -> str:
    if token[0] in "*+":
        return token[0]
    low = int(token["low"])
    if not token["comma"] and low <= enough:
        return token[0]
    return {0: "*", 1: "+"}.get(low, f"{{{min(low, enough)},}}")


def _reason(error: Exception) -> str:
    return error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
