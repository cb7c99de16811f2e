"""Rules that are run together on one stream: those whose findings may have to be hidden, or those only recorded.

    closely    `hits`: which rules may match; their findings are then decided group by group (`stream_track`)
    glance     `open_from`: nothing can have been found; returns where the next finding could begin

For nearly every piece of a stream the glance suffices: one pass of the gate over the last few dozen bytes, which also
reports whether anything at the end could become a match, and whether a context precedes a secret there. Only then each
group determines where that begins.

Rule of the file: a glance may know less than a closer look, never more; `None` means unknown.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Final

from proxy.policy import base64_runs, boundaries, openings
from proxy.policy.detect import LARGE, MAIN, PARTS, Matcher
from proxy.policy.openings import Openings
from proxy.policy.rules import Rule
from proxy.policy.stream_track import Watch

_Group = tuple[list[Matcher], bool, int]
_MOST: Final = 128
"""Rules of one group. To compile what may be open, RE2 takes a time that grows with the square of their number: 15 ms
for 100 keywords of two words, 300 ms for 500. The shipped rules of one group are fewer."""
_HEAD: Final = re.compile(rb"[A-Za-z0-9_+-]{0,4}")


class Team:
    """Watches that advance together, and their gate. Immutable, so any thread may use it."""

    def __init__(self, groups: Iterable[_Group]) -> None:
        self.watches: list[Watch] = []
        self._members: list[tuple[int, int]] = []
        for number, (matchers, leads, kept) in enumerate(_divided(groups)):
            rules = [matcher.rule for matcher in matchers]
            self.watches.append(Watch(tuple(matchers), Openings(rules), leads, kept))
            self._members += ((number, index) for index in range(len(rules)))
        self._open = [(watch.openings.opening.find, watch.kept > 0) for watch in self.watches if not watch.leads]
        self._first_open = len(self._members)
        """The gate's first pattern that is no rule's but tells whether anything is open in a group."""
        self._first_led = self._first_open + len(self._open)
        """Its first pattern for a secret that follows its context."""
        begun = [watch.openings.begun for watch in self.watches if not watch.leads]
        leading = [watch.openings.led for watch in self.watches if watch.leads]
        self._gate = openings.gate(self._rules(), [*begun, *leading]).hits

    def hits(self, data: bytes) -> dict[int, list[int]]:
        """Return for each watch which of its rules may match in `data`; watches without any are omitted."""
        apart = len(data) >= LARGE and threading.get_ident() != MAIN
        hits: dict[int, list[int]] = {}
        for member in self._hits_apart(data) if apart else self._gate(data):
            if member < self._first_open:
                number, index = self._members[member]
                hits.setdefault(number, []).append(index)
        return hits

    def _hits_apart(self, data: bytes) -> Iterable[int]:
        """Return the members that may match in a large text, with automata that have no part in a glance.

        Random letters build a tenth of the states there, and in a part of the rules a tenth of those.
        """
        if base64_runs.is_mostly_runs(data):
            return [part + PARTS * index for part, hits in enumerate(self._parts) for index in hits(data)]
        return self._gate_apart(data)

    @cached_property
    def _gate_apart(self) -> Callable[[bytes], list[int]]:
        return openings.gate(self._rules()).hits

    @cached_property
    def _parts(self) -> list[Callable[[bytes], list[int]]]:
        rules = self._rules()
        return [openings.gate_part(rules[part::PARTS]).hits for part in range(PARTS)]

    def _rules(self) -> list[Rule]:
        return [self.watches[number].matchers[index].rule for number, index in self._members]

    def open_from(self, data: bytes, at: int, cover: int) -> int | None:
        """Return up to where text may be sent, `None` if that needs a closer look. Matches before `at` are decided.

        `cover`: end of the last mask; before it no mask keeps anything.
        """
        stop = size = len(data)
        before = at - boundaries.REACH if at > boundaries.REACH else 0
        first = self._first_open
        for member in self._gate(data[before:]) if first else ():
            if member >= first:
                if member >= self._first_led:
                    return None
                find, keeps = self._open[member - first]
                place = find(data, before, size)[0][0]
                place = place if place > at else at  # comparisons, as `max` and `min` take 840 instructions each
                if keeps and place >= cover:
                    place = head_end(data, place)
                stop = place if place < stop else stop
            elif self._matches(member, data, at):
                return None
        return stop

    def _matches(self, member: int, data: bytes, at: int) -> bool:
        """Tell whether the pattern of a rule reported by the gate matches, too."""
        number, index = self._members[member]
        return self.watches[number].matchers[index].search(data, at) is not None


def _divided(groups: Iterable[_Group]) -> Iterator[_Group]:
    for matchers, leads, kept in groups:
        for at in range(0, len(matchers), _MOST):
            yield matchers[at : at + _MOST], leads, kept


def head_end(data: bytes, at: int) -> int:
    """Return the end of the first characters at `at` that a mask would keep, so that they need not wait."""
    head = _HEAD.match(data, at)
    return at if head is None else head.end()
