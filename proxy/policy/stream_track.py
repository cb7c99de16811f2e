"""One group of rules following one stream: what it has found so far, and from where it may still find something.

    data    ......context......|  open  |
                               ^ settled: whatever begins before is decided
                                        ^ end of what has come
    a token that goes on beyond every limit is accepted while it runs; from then on only its run is followed

What is decided is decided by `Matcher.search`, `judge` and `run_end`, the functions that also read whole texts, from
the same place with the same characters around it. So cutting a text changes when something is found, never what.

A rule with context before its secret is decided once its secret is, although its context could lead to a second one:
what leads to a secret must prefer the nearest (`.{0,80}?`), as the pattern does when it meets the whole text.

Rule of the file: offsets are bytes of the window; `shift` moves them when the window does.
"""

from dataclasses import dataclass, replace
from typing import Final

import re2

from proxy.policy.detect import Candidate, Finding, Matcher
from proxy.policy.openings import Openings

_LOOK_AGAIN: Final = 64
"""From this many open bytes on, a second look tells what of them is open; and again after twice as many more."""
_UNTIL_REACH: Final = 256
"""How many bytes the text that ends a run may take."""
_NEVER: Final = 1 << 62


@dataclass(frozen=True)
class Watch:
    """A group of rules that hold back alike. Immutable once built."""

    matchers: tuple[Matcher, ...]
    openings: Openings
    gate: re2.Set
    holds: bool
    """Whether what could be a match is held back, or only found."""
    leads: bool
    """Whether the rules have context before their secret."""
    kept: int
    """How many first characters of a match its mask keeps in any case, so that they need not wait."""


@dataclass(slots=True)
class Run:
    """A finding that is accepted and has not ended."""

    finding: Finding
    index: int
    """Of its rule in the group."""
    at: int
    """From where the run is to be followed."""


class Track:
    """The state of one group in one stream."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.settled = 0
        """Every match that begins before is decided."""
        self.undecided = 0
        """Every secret that begins before is decided; not less than `settled`."""
        self.runs: list[Run] = []
        self._next: dict[int, int] = {}
        self._look_again = _LOOK_AGAIN

    def advance(self, data: bytes, final: bool) -> list[Finding]:
        """Take what has come and return the findings that are now decided, in no particular order.

        `data`: the window, grown since the last call. `final`: nothing follows, so everything is decided.
        """
        found = self._ended_runs(data, final)
        openings = self.watch.openings
        limit = len(data) if final else self._limit(data)
        self.undecided = openings.secret(data, limit) if self.watch.leads and limit < len(data) else limit
        if len(data) - self.settled >= openings.least:
            for index in self.watch.gate.Match(data[self.settled :]) or ():
                limit = min(limit, self._decide(index, data, limit, final, found))
        self.settled = limit
        return found

    def keeps_from(self) -> int:
        """Return the first byte that is still needed, the few before it for their boundary not counted."""
        return min([self.settled, *(run.at for run in self.runs)])

    def shift(self, count: int) -> None:
        """Move with the window, of which the first `count` bytes are gone."""
        self.settled -= count
        self.undecided -= count
        self._next = {index: at - count for index, at in self._next.items() if at > count}
        for run in self.runs:
            run.at -= count
            run.finding = replace(run.finding, start=run.finding.start - count)

    def _limit(self, data: bytes) -> int:
        """Return from where on a match may begin that is not decided."""
        start = self.watch.openings.start(data, self.settled)
        if len(data) - start < _LOOK_AGAIN:
            self._look_again = _LOOK_AGAIN
        elif len(data) - start >= self._look_again:
            start = max(start, self.watch.openings.settled(data, self.settled))
            self._look_again = len(data) - start + 2 * _LOOK_AGAIN
        return start

    def _decide(self, index: int, data: bytes, limit: int, final: bool, found: list[Finding]) -> int:
        """Judge the matches of one rule that are decided; return a lower limit where the first of them has to wait."""
        matcher = self.watch.matchers[index]
        at = max(self._next.get(index, 0), self.settled)
        while at < _NEVER and (candidate := matcher.search(data, at)) and self._is_decided(candidate, limit):
            runs_on = not final and self._runs_on(matcher, data, candidate)
            if runs_on and len(data) - candidate.start < matcher.rule.max_length:
                limit = min(limit, candidate.begin)
                self.undecided = min(self.undecided, candidate.start)
                break
            finding = matcher.judge(data, candidate)
            if finding is None:
                at = candidate.begin + 1
            elif runs_on:
                self.runs.append(Run(finding, index, candidate.end))
                at = _NEVER
            else:
                found.append(finding)
                at = finding.end
        self._next[index] = at
        return limit

    def _is_decided(self, candidate: Candidate, limit: int) -> bool:
        return candidate.begin < limit or (self.watch.leads and candidate.end <= self.undecided)

    def _runs_on(self, matcher: Matcher, data: bytes, candidate: Candidate) -> bool:
        return bool(matcher.rule.alphabet) and matcher.run_end(data, candidate.end) == len(data)

    def _ended_runs(self, data: bytes, final: bool) -> list[Finding]:
        """Follow the runs; return the findings that have ended."""
        ended: list[Finding] = []
        for run in tuple(self.runs):
            matcher = self.watch.matchers[run.index]
            end = matcher.run_end(data, run.at)
            if final or end < len(data):
                self.runs.remove(run)
                self._next[run.index] = end
                ended.append(replace(run.finding, end=end))
            else:
                run.at = max(run.at, end - (_UNTIL_REACH if matcher.rule.until else 0))
        return ended
