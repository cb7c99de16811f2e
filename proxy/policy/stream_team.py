"""Rules that are run together on one stream: those whose findings may have to be hidden, or those only recorded.

    closely    `hits`: which rules may match; their findings are then decided group by group (`stream_track`)
    glance     `open_from`: nothing can have been found; returns where the next finding could begin

For nearly every piece of a stream the glance suffices: one pass of a gate over the last few dozen bytes, which tells
whether anything near could be a match, and whether a context precedes a secret at the end; and a search backwards from
there for what could become a match. The gate asks for little, so that it is compiled soon (12 ms; 50 with all that the
detector's gate asks for, and the beginnings of all rules); where it names something, the detector's gate decides.

Rule of the file: a glance may know less than a closer look, never more; `None` means unknown.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxy.nouns.findings import Action, Finding, Severity
from proxy.policy import boundaries, mask, openings
from proxy.policy.automata import Ending
from proxy.policy.detect import Detector, Matcher
from proxy.policy.openings import Openings
from proxy.policy.rules import Rule
from proxy.policy.stream_track import Watch

Decide = Callable[[Finding], Action]
"""Returns the action for a finding. May depend only on its rule, category and severity."""
_Group = tuple[list[Matcher], bool, int]
_Open = tuple[Ending, bool]
"""What may be open of some rules, and whether their masks keep its first characters."""
_MOST: Final = 128
"""Rules of one group. The shipped rules of one group are fewer."""
_FEW: Final = 8
"""Rules of a group of which little begins."""
SURE: Final = 4 * mask.KEPT
"""From this length on, a mask keeps the maximum."""
_HEAD: Final = re.compile(rb"[A-Za-z0-9_+-]{0,4}")


class Team:
    """Watches that advance together, and their gate. Immutable, so any thread may use it."""

    def __init__(self, detector: Detector, groups: Iterable[_Group], *, glances: bool = True) -> None:
        """`groups`: of matchers of `detector`. `glances`: False if nobody needs one: `open_from` knows nothing then."""
        self._detector = detector
        self.watches: list[Watch] = []
        self._members: list[tuple[int, int]] = []
        for number, (matchers, leads, kept) in enumerate(_divided(groups)):
            rules = [matcher.rule for matcher in matchers]
            opened = Openings(rules, detector.gates, whole=glances and not leads)
            opened.compile_whole(leads=leads)
            self.watches.append(Watch(tuple(matchers), opened, leads, kept))
            self._members += ((number, index) for index in range(len(rules)))
        places = {id(matcher): at for at, matcher in enumerate(detector.matchers)}
        self._places = {places[id(self.watches[n].matchers[i])]: (n, i) for n, i in self._members}
        """By the index of a matcher in the detector: its group, and its index there."""
        usual = [watch for watch in self.watches if not watch.leads]
        self._open: list[_Open] = []
        self._open_in_words: list[_Open] = []
        """What begins within a word: of many rules, nearly any. Not asked if every mask keeps all of the last word."""
        self._open_if_told: list[_Open] = []
        """What is asked only if the gate tells of it: of few rules, or across blanks."""
        self._first_near = self._first_led = 0
        if not glances:
            self._gate: Callable[[bytes], list[int]] = lambda _data: [self._first_led] if self._members else []
            return
        begun: list[str] = []
        for watch in usual:
            for number, pattern in enumerate(watch.openings.begun()):
                if len(watch.matchers) <= _FEW or number >= watch.openings.in_words:
                    begun.append(pattern)
                    place = self._open_if_told
                else:
                    place = self._open_in_words if watch.kept else self._open
                place.append((watch.openings.endings[number], watch.kept > 0))
        self._first_near = len(begun)
        """The gate's first pattern that tells whether rules of a group may have matched."""
        self._first_led = self._first_near + len(usual)
        """Its first pattern for a secret behind its context."""
        near = [watch.openings.near() for watch in usual]
        led = [pattern for watch in self.watches if watch.leads for pattern in watch.openings.led()]
        self._glance = detector.gates.search("glance", [*begun, *near, *led])
        self._gate = self._glance.hits if self._members else lambda _data: []

    def compile(self) -> None:
        """Compile what the first looks would wait for."""
        for watch in self.watches:
            watch.openings.compile()

    def hits(self, data: bytes, for_loop: bool = False) -> dict[int, list[int]]:
        """Return for each watch which of its rules may match in `data`; watches without any are omitted.

        The detector's gate tells: random letters build a tenth of the states there that they build in that of a glance.
        """
        hits: dict[int, list[int]] = {}
        for at in self._detector.hits_of_stream(data, for_loop) if self._members else ():
            member = self._places.get(at)
            if member is not None:
                hits.setdefault(member[0], []).append(member[1])
        return hits

    def open_from(self, data: bytes, at: int, cover: int) -> int | None:
        """Return up to where text may be sent, `None` if that needs a closer look. Matches before `at` are decided.

        `cover`: end of the last mask; before it no mask keeps anything.
        """
        stop = size = len(data)
        before = at - boundaries.REACH if at > boundaries.REACH else 0
        asked = self._open
        _, blank, word = data.rpartition(b" ")
        is_short = blank and len(word) <= mask.KEPT and (not word or word.isalnum())
        if not is_short or size - len(word) <= cover:
            asked = asked + self._open_in_words
        for found in self._gate(data[before:]):
            if found < self._first_near:
                asked = [*asked, self._open_if_told[found]]
            elif found >= self._first_led or self._matches(data, before, at):
                return None
        for ending, keeps in asked:
            place = ending.find(data, before, size)[0][0]
            if 0 <= place < size:
                place = place if place > at else at  # comparisons, as `max` and `min` take 840 instructions each
                if keeps and place >= cover:
                    place = head_end(data, place)
                stop = place if place < stop else stop
        return stop

    def _matches(self, data: bytes, before: int, at: int) -> bool:
        """Tell whether some rule matches from `at` on, of those that the gate of all rules names from `before` on."""
        members = [
            self._places[found] for found in self._detector.hits_of_stream(data[before:]) if found in self._places
        ]
        return any([self.watches[number].matchers[index].search(data, at) is not None for number, index in members])


def teams(detector: Detector, action: Decide, *, glances: bool) -> tuple[Team, Team]:
    """Return the rules whose findings may have to be hidden or blocked, and those whose findings are only recorded."""
    held: dict[tuple[bool, int], list[Matcher]] = {}
    noted: list[Matcher] = []
    for matcher in detector.matchers:
        actions = _actions(matcher.rule, action)
        if actions & {"redact", "block"}:
            held.setdefault(_holding(matcher.rule, "block" in actions), []).append(matcher)
        elif actions != {"allow"}:
            noted.append(matcher)
    groups = ((group, leads, kept) for (leads, kept), group in held.items())
    hiding = Team(detector, groups, glances=glances)
    return hiding, Team(detector, [(noted, False, 0)] if noted else [], glances=False)


def _actions(rule: Rule, action: Decide) -> set[Action]:
    """Return the possible actions for findings of a rule: a failed checksum lowers their severity."""
    severities: set[Severity] = {rule.severity}
    if rule.checksum and rule.severity == "high":
        severities.add("medium")
    return {action(Finding(rule.id, rule.category, severity, 0, 0)) for severity in severities}


def _holding(rule: Rule, blocks: bool) -> tuple[bool, int]:
    """Return whether a rule that holds back has a context before its secret, and what its masks keep at least."""
    leads = openings.has_lead(rule)
    keeps = not leads and not blocks and openings.least_secret(rule) >= SURE
    return leads, mask.KEPT if keeps else 0


def _divided(groups: Iterable[_Group]) -> Iterator[_Group]:
    """Yield groups of fewer rules."""
    for matchers, leads, kept in groups:
        for first in range(0, len(matchers), _MOST):
            yield matchers[first : first + _MOST], leads, kept


def head_end(data: bytes, at: int) -> int:
    """Return the end of the first characters at `at` that a mask would keep, so that they need not wait."""
    head = _HEAD.match(data, at)
    return at if head is None else head.end()
