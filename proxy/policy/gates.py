"""The compiled gates of a process, shared between policies: each pattern is compiled once, and never in one long call.

RE2 compiles a gate in one call during which no other thread gets the interpreter: 0.4 us per instruction, so 12 ms for
the gate of the shipped rules, and as long for the one that glances at a stream. Before the process serves requests, the
gates of the usual policy are therefore compiled whole. Later, for a project with rules of its own or after a reload, a
policy reuses the gates that know most of its patterns; only new patterns are compiled, in small gates, each of which
costs one more pass over a text.

A reused gate may know patterns that the policy does not have; their hits are ignored.

Gates are shared only between scans with the same `use`: RE2 locks an automaton whose memory is used up, and the event
loop would wait until a thread has read all of a large text.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from weakref import WeakSet

from proxy.policy.automata import MAX_MEMORY, Gate

MUCH: Final = 20_000
"""Characters of patterns that are compiled in one call: 5 ms, for closures. See also `in_parts`."""
_MUCH_OF_GATE: Final = 15_000
"""The same for a gate, whose patterns have counted repeats. The shipped rules are 34,000."""
_SMALL: Final = _MUCH_OF_GATE // 2
_MOST_SMALL: Final = 4
"""Gates of fewer than `_SMALL` characters that a policy takes over; what the others know is compiled anew, together.
Otherwise, every changed rule of every reload would add a pass to each text."""


class Search:
    """Gates that together look for some patterns, in one pass each. Immutable, so any thread may use it."""

    def __init__(self, wanted: Sequence[str], gates: Sequence[Gate]) -> None:
        self.gates = gates
        self.hits: Callable[[bytes], list[int]] = gates[0].hits
        """Returns the indexes of the patterns that match anywhere in a text, unordered."""
        if len(gates) > 1 or gates[0].patterns != tuple(wanted):
            places: dict[str, list[int]] = defaultdict(list)
            for index, pattern in enumerate(wanted):
                places[pattern].append(index)
            self._parts = [(gate.hits, [places.pop(pattern, []) for pattern in gate.patterns]) for gate in gates]
            self.hits = self._hits_of_all

    def _hits_of_all(self, data: bytes) -> list[int]:
        found: list[int] = []
        for hits, places in self._parts:
            for index in hits(data):
                found += places[index]
        return found


class Gates:
    """What is compiled for the policies of a process. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, WeakSet[Gate]] = defaultdict(WeakSet)
        self._lock = threading.Lock()
        self.is_serving = False
        """Whether to compile in parts."""

    def begin_serving(self) -> None:
        """Compile in parts from now on."""
        self.is_serving = True

    def search(self, use: str, wanted: Sequence[str], max_memory: int = MAX_MEMORY) -> Search:
        """Return what looks for the patterns in `wanted`, compiled as far as it is new. `max_memory`: of each gate."""
        gates = self._useful(use, wanted)
        known = {pattern for gate in gates for pattern in gate.patterns}
        new = [pattern for pattern in wanted if pattern not in known]
        if new or not gates:
            for part in in_parts(new, _MUCH_OF_GATE) if self.is_serving else [new]:
                gates.append(Gate(part, max_memory))
        with self._lock:
            self._known[use].update(gates)
        return Search(wanted, gates)

    def _useful(self, use: str, wanted: Iterable[str]) -> list[Gate]:
        """Return the known gates that look for little else, those with most patterns first; as yet for nothing else."""
        with self._lock:
            known = sorted(self._known[use], key=lambda gate: len(gate.patterns), reverse=True)
        left = set(wanted)
        if not self.is_serving:
            return [gate for gate in known if left == set(gate.patterns)][:1]
        chosen: list[Gate] = []
        small = 0
        for gate in known:
            shared = left.intersection(gate.patterns)
            is_small = sum(map(len, gate.patterns)) < _SMALL
            if 2 * len(shared) > len(gate.patterns) and not (is_small and small == _MOST_SMALL):
                chosen.append(gate)
                left -= shared
                small += is_small
        return chosen


def in_parts(patterns: Iterable[str], much: int = MUCH) -> list[list[str]]:
    """Return patterns in groups that RE2 compiles soon each: of `much` characters, or of one pattern that is longer."""
    parts: list[list[str]] = [[]]
    size = 0
    for pattern in patterns:
        size += len(pattern)
        if size > much and parts[-1]:
            parts.append([])
            size = len(pattern)
        parts[-1].append(pattern)
    return parts
