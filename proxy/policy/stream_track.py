"""A group of rules following one stream: their findings so far, and from where there may be more.

    data    ......context......|  open  |
                               ^ settled: everything that begins before is decided
                                        ^ end of the received text
    a token that exceeds its rule's limit is accepted while it runs; from then on only its run is followed

Decisions are made by `Matcher.search`, `judge` and `follow`, the functions that also read complete texts, at the same
position with the same surroundings. A match counts only once nothing that follows can change it: it begins before
everything that is open. So splitting a text changes when something is found, never what.

If a context precedes a secret, less has to wait than what is undecided (`undecided`): the context may be sent. Text
that was once free to be sent stays so, as nothing that follows can make it part of a finding.

Rule of the file: offsets are bytes of the window; `shift` moves them when the window does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.nouns.findings import Finding
from proxy.policy.detect import Candidate, Matcher
from proxy.policy.openings import Openings
from proxy.policy.repetition import CANDIDATES, Repetition

_LOOK_AGAIN: Final = 64
"""From this many open bytes on, a second look narrows down what is open; again after twice as many more."""
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Watch:
    """A group of rules with the same hold-back. Immutable."""

    matchers: tuple[Matcher, ...]
    openings: Openings
    leads: bool = False
    """Whether every rule has a context before its secret that may be sent."""
    kept: int = 0
    """How many first characters of a finding its mask keeps in any case, so that they need not wait."""


@dataclass(slots=True)
class Run:
    """A finding that is accepted and has not ended."""

    finding: Finding
    index: int
    """Index of its rule in the group."""
    at: int
    """Position from which the run is to be followed."""
    reached: int
    """Everything before belongs to it, whatever follows; behind, an escape or a quote may be incomplete."""


class Track:
    """The state of one group in one stream."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.settled = 0
        """Every match that begins before is decided."""
        self.undecided = 0
        """No future finding begins before."""
        self.waits = False
        """`settled` is further back than it need be, as automata are not compiled yet (`Openings.prepare`)."""
        self.runs: list[Run] = []
        self._next: dict[int, int] = {}
        self._look_again = _LOOK_AGAIN

    def advance(self, data: bytes, hits: Iterable[int], final: bool, in_run: bool = False) -> list[Finding]:
        """Take the received text and return the findings that have ended, unordered.

        `data`: the window, grown since the last call. `hits`: which rules of the group may match from `settled` on.
        `final`: nothing follows, so everything is decided. `in_run`: it ends in a run of base64.
        """
        found = self._follow(data, final) if self.runs else []
        self.waits = False
        limit = len(data) if final else self._limit(data, bool(hits), in_run)
        waiting = _NEVER
        for index in hits:
            waiting = min(waiting, self._decide(index, data, limit, final, found))
        self.settled = min(limit, waiting)
        if not self.watch.leads:
            self.undecided = self.settled
        else:
            place = self.settled if waiting < _NEVER else self.watch.openings.secret(data, limit)
            self.undecided = max(self.undecided, place)
        return found

    def needs_from(self) -> int:
        """Return the first byte that is still needed, not counting those before it for boundaries."""
        return min([self.settled, *(run.at for run in self.runs)]) if self.runs else self.settled

    def shift(self, count: int) -> None:
        """Adjust positions after the first `count` bytes of the window were dropped."""
        self.settled -= count
        self.undecided -= count
        self._next = {index: at if at == _NEVER else at - count for index, at in self._next.items() if at > count}
        for run in self.runs:
            run.at -= count
            run.reached -= count
            run.finding = run.finding._replace(start=run.finding.start - count)

    def _limit(self, data: bytes, has_hits: bool, in_run: bool) -> int:
        """Return from where on an undecided match may begin.

        If nothing waits for the answer, it is computed only now and then: until then `settled` stays.
        """
        if self.watch.leads and not has_hits and len(data) - self.settled < self._look_again:
            return self.settled
        if in_run:
            return self._closely(data, self.settled)
        start = self.watch.openings.start(data, self.settled)
        if len(data) - start < _LOOK_AGAIN:
            self._look_again = _LOOK_AGAIN
        elif len(data) - start >= self._look_again:
            start = self._closely(data, start)
            self._look_again = len(data) - start + (0 if self.waits else 2 * _LOOK_AGAIN)
        return start

    def _closely(self, data: bytes, at: int) -> int:
        openings = self.watch.openings
        start = openings.settled(data, at)
        self.waits = not openings.is_prepared
        return start

    def _decide(self, index: int, data: bytes, limit: int, final: bool, found: list[Finding]) -> int:
        """Judge the decided matches of one rule; return where the first undecided one begins."""
        matcher = self.watch.matchers[index]
        at = max(self._next.get(index, 0), self.settled)
        waiting = _NEVER
        repetition = Repetition(matcher.view)
        decided = repetition.decided
        while at < _NEVER and (candidate := matcher.search(data, at)):
            if candidate.begin >= limit or not (final or self._is_decided(matcher, data, candidate)):
                waiting = candidate.begin
                break
            if len(decided) >= CANDIDATES:
                at = repetition.skip(data[:limit], candidate.begin, found)
                if at > candidate.begin:
                    continue
            finding = matcher.judge(data, candidate)
            decided.append((candidate.begin, finding))
            if finding is None:
                at = matcher.after(data, candidate)
                continue
            end, ask_at, reached = matcher.follow(data, candidate.end, final)
            if end is None:
                self.runs.append(Run(finding, index, ask_at, reached))
                at = _NEVER
            else:
                found.append(finding)
                at = finding.end
        self._next[index] = at
        return waiting

    def _is_decided(self, matcher: Matcher, data: bytes, candidate: Candidate) -> bool:
        """Tell whether no more of the run of `candidate` is needed to judge it.

        Its run is followed only near the end: each of many candidates in a long run would read all of the rest.
        """
        if not matcher.rule.exact and len(data) - candidate.start >= matcher.rule.max_length:
            return True
        if matcher.follow(data, candidate.end, final=False).end is not None:
            return True
        return matcher.rule.exact and candidate.end < len(data)

    def _follow(self, data: bytes, final: bool) -> list[Finding]:
        """Follow the runs; return the findings that have ended."""
        ended: list[Finding] = []
        for run in tuple(self.runs):
            end, run.at, run.reached = self.watch.matchers[run.index].follow(data, run.at, final)
            if end is not None:
                self.runs.remove(run)
                self._next[run.index] = end
                ended.append(run.finding._replace(end=end))
        return ended


def prepare(tracks: Iterable[Track]) -> None:
    """Compile some of what a closer look still waits for; of one group only, so that it takes milliseconds."""
    late = next((track for track in tracks if track.waits), None)
    if late is not None:
        late.watch.openings.prepare()
