"""The findings of many rules in one text: their order, and where they are in characters."""

import heapq
from typing import Final

from proxy.event_loop.fair_threads import give_way
from proxy.nouns.findings import Finding, in_steps
from proxy.openai.pieces import PIECE

_CONTINUATIONS: Final = bytes(range(0x80, 0xC0))
"""The bytes with which no character begins."""


def place(finding: Finding) -> tuple[int, int, str]:
    """Return the sort key of findings."""
    return finding.start, -finding.end, finding.rule_id


def merged(of_rules: list[list[Finding]]) -> list[Finding]:
    """Return the findings of all rules by position; those of each rule are in order. Many are not sorted in one call:
    half a million keep the interpreter for 50 ms."""
    found = [each for each in of_rules if each]
    if len(found) == 1:
        return found[0]
    return list(heapq.merge(*found, key=place))


def in_characters(data: bytes, findings: list[Finding]) -> None:
    """Convert offsets in bytes to offsets in characters. `data`: UTF-8; `findings`: nearly in order.

    Some at a time: to sort the offsets of half a million findings in one call takes 20 ms, and so does a long text.
    """
    at = count = 0
    for part in in_steps(len(findings)):
        some = findings[part]
        first = min([finding.start for finding in some])
        count, at = (count, at) if first >= at else (0, 0)
        count, at = count + _characters(data, at, first), first
        characters = {}
        seen, before = count, at
        for offset in sorted({offset for finding in some for offset in (finding.start, finding.end)}):
            seen, before = seen + _characters(data, before, offset), offset
            characters[offset] = seen
        for index, found in enumerate(some, part.start):  # one by one, as all at once they would be freed at once
            findings[index] = found._replace(start=characters[found.start], end=characters[found.end])


def _characters(data: bytes, at: int, stop: int) -> int:
    """Return how many characters begin between two places."""
    if stop - at <= PIECE:
        return len(data[at:stop].decode("utf-8", "replace"))
    count = 0
    for each in range(at, stop, PIECE):
        give_way()
        count += len(data[each : min(each + PIECE, stop)].translate(None, _CONTINUATIONS))
    return count
