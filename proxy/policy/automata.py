"""RE2 over bytes, by the one call of the binding that costs no more than the search itself.

The public functions of the `re2` package build a generator and a match object for every call: 6 to 10 microseconds
around a search that takes one, and a streamed event needs some of them (`python -m bench.policy_stream`). So this
module calls the objects inside, whose `Match` returns spans, or indexes. It is the only one that may; the version is
pinned in the locks, and tests/policy/test_automata.py fails where another version behaves otherwise.

Source: https://github.com/google/re2/blob/main/python/re2.py
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import re2

from proxy.policy import patterns

_SEARCH: Final = re2._Anchor.UNANCHORED
_FULL: Final = re2._Anchor.ANCHOR_BOTH
_NOWHERE: Final = (-1, -1)
_MAX_MEMORY: Final = 64 << 20

Spans = list[tuple[int, int]]


class Automaton:
    """One compiled pattern. Immutable, so any thread may use it.

    Raises:
        re2.error: the pattern is not one of RE2's.
    """

    def __init__(self, pattern: str) -> None:
        options = patterns.options()
        options.max_mem = _MAX_MEMORY
        compiled = re2.compile(pattern.encode(), options)
        self.groups: Mapping[str, int] = {name.decode(): index for name, index in compiled.groupindex.items()}
        self._match = compiled._regexp.Match

    def search(self, data: bytes, at: int, end: int | None = None) -> Spans | None:
        """Return the spans of the leftmost match from `at` on and of its groups; (-1, -1) where a group has none.

        `end`: nothing from there on is part of the match, though it is looked at by conditions such as `\\b`.
        """
        spans: Spans = self._match(_SEARCH, data, at, len(data) if end is None else end)
        return None if spans[0] == _NOWHERE else spans

    def accepts(self, data: bytes) -> bool:
        """Tell whether all of `data` is a match."""
        return bool(self._match(_FULL, data, 0, len(data))[0] != _NOWHERE)


class Gate:
    """Patterns that are looked for together, in one pass. Immutable once built, so any thread may use it."""

    def __init__(self, patterns_in_order: Iterable[str], max_memory: int = _MAX_MEMORY) -> None:
        chosen = re2.Set.SearchSet(patterns.gate_options(max_memory))
        for pattern in patterns_in_order:
            chosen.Add(pattern)
        chosen.Compile()
        self.hits: Callable[[bytes], list[int]] = chosen._set.Match
        """Gives the indexes of those that match anywhere in a text, in no particular order."""


class Ending:
    """Patterns that a text may end in, asked together: the longest ending that is a match of one of them.

    RE2 runs them backwards from the end and stops where none can match: cost follows the ending, not the text.
    """

    def __init__(self, endings: list[str]) -> None:
        self.pattern = f"(?:{'|'.join(endings)})\\z" if endings else ""
        """The whole of it, for a `Gate`."""
        self._match = Automaton(self.pattern)._match if endings else _nowhere
        self.find: Callable[[bytes, int, int], Spans] = partial(self._match, _SEARCH)
        """Gives what `start` does between two places, as a span; (-1, -1) where there is none."""

    def start(self, data: bytes, at: int) -> int:
        """Return where the longest ending begins that begins at `at` or later; the size of `data` where none does."""
        size = len(data)
        start = self.find(data, at, size)[0][0]
        return size if start < 0 else start


def _nowhere(_anchor: object, _data: bytes, _at: int, _end: int) -> Spans:
    return [_NOWHERE]
