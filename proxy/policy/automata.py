"""RE2 over bytes, through the one call of the binding that costs no more than the search itself.

The public functions of the `re2` package create a generator and a match object for every call: 6 to 10 microseconds
around a search that takes one, several times per streamed event (`python -m bench.policy_stream`). So this module calls
the inner objects, whose `Match` returns spans or indexes. It is the only module that may; the version is pinned in the
lock files, and tests/policy/test_automata.py fails if another version behaves differently.

Source: https://github.com/google/re2/blob/main/python/re2.py
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Final

import re2

from proxy.policy import patterns

_SEARCH: Final = re2._Anchor.UNANCHORED
_FULL: Final = re2._Anchor.ANCHOR_BOTH
_NOWHERE: Final = (-1, -1)
MAX_MEMORY: Final = 64 << 20

Spans = list[tuple[int, int]]


class Automaton:
    """One compiled pattern. Immutable, so any thread may use it.

    Raises:
        re2.error: the pattern is not one of RE2's.
    """

    def __init__(self, pattern: str) -> None:
        options = patterns.options()
        options.max_mem = MAX_MEMORY
        compiled = re2.compile(pattern.encode(), options)
        self.groups: Mapping[str, int] = {name.decode(): index for name, index in compiled.groupindex.items()}
        self._match = compiled._regexp.Match

    def search(self, data: bytes, at: int, end: int | None = None) -> Spans | None:
        """Return the spans of the leftmost match from `at` on and of its groups; (-1, -1) for a group without a match.

        `end`: a match ends there at the latest, but conditions such as `\\b` see what follows.
        """
        spans: Spans = self._match(_SEARCH, data, at, len(data) if end is None else end)
        return None if spans[0] == _NOWHERE else spans

    def accepts(self, data: bytes) -> bool:
        """Tell whether the whole of `data` matches."""
        return bool(self._match(_FULL, data, 0, len(data))[0] != _NOWHERE)


class Gate:
    """Patterns that are searched together, in one pass. Immutable, so any thread may use it."""

    def __init__(self, patterns_in_order: Iterable[str], max_memory: int = MAX_MEMORY) -> None:
        self.patterns = tuple(patterns_in_order)
        chosen = re2.Set.SearchSet(patterns.gate_options(max_memory))
        for pattern in self.patterns:
            chosen.Add(pattern)
        chosen.Compile()
        self.hits: Callable[[bytes], list[int]] = chosen._set.Match
        """Returns the indexes of the patterns that match anywhere in a text, unordered."""


class Ending:
    """Patterns searched together at the end of a text: finds the longest suffix that matches one of them.

    RE2 runs them backwards from the end and stops once none can match: the cost depends on the suffix, not the text.
    Compiled when it is first used. Any thread may use it: at worst, two compile the same.
    """

    def __init__(self, endings: Sequence[str]) -> None:
        self._endings = endings

    @cached_property
    def find(self) -> Callable[[bytes, int, int], Spans]:
        """Do the same as `start`, between two offsets and as a span; (-1, -1) without a match."""
        endings = self._endings
        match = Automaton(patterns.at_end(endings))._match if endings else _nowhere
        return partial(match, _SEARCH)

    @property
    def is_compiled(self) -> bool:
        """True once it was used."""
        return "find" in self.__dict__

    @property
    def count(self) -> int:
        """The number of its patterns."""
        return len(self._endings)

    @property
    def size(self) -> int:
        """Characters of its patterns."""
        return sum(map(len, self._endings))

    def compile(self) -> None:
        """Compile it now, both for a search forwards, which keeps the interpreter, and backwards, which does not."""
        self.find(b"", 0, 0)

    def start(self, data: bytes, at: int) -> int:
        """Return where the longest matching suffix at or after `at` starts; the size of `data` without one."""
        size = len(data)
        start = self.find(data, at, size)[0][0]
        return size if start < 0 else start


def forget_patterns() -> None:
    """Drop what the binding remembers of compiled patterns. Automata in use stay."""
    re2.purge()


def _nowhere(_anchor: object, _data: bytes, _at: int, _end: int) -> Spans:
    return [_NOWHERE]
