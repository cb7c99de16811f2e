"""Texts that repeat themselves: what was decided in one period is true of all that follow.

    sk-proj-sk-proj-sk-proj-sk-proj- ... sk-proj-sk-pr0j-
    ^       ^ a candidate like the previous one, in every byte that decides: the period is 8 bytes
            '----------------------------^ as far as the text repeats itself, every decision repeats itself, too

Eight megabytes of nothing but beginnings of keys hold a million candidates, each with the cost of a search. Here only
those of the first periods are judged, and those at the end; the bytes between are compared at the speed of memory.

Rule of the file: exact. A candidate is skipped only if all bytes that can influence its decision are equal.
"""

from collections.abc import Iterator
from typing import Final

from proxy.event_loop.fair_threads import give_way
from proxy.nouns.findings import Finding
from proxy.policy import boundaries

CANDIDATES: Final = 32
"""After how many candidates the text is compared with what precedes; a longer period is not noticed."""
_LEFT: Final = 2 * boundaries.REACH
"""How far before a candidate its boundary may read."""
_AT_ONCE: Final = 256
_BLOCK: Final = 4096
"""Bytes compared at once."""


class Repetition:
    """Follows the candidates of one rule through one text.

    `view`: how many bytes from its beginning decide about a candidate, unless its run goes on behind the next one.
    """

    def __init__(self, view: int) -> None:
        self._view = view
        self.decided: list[tuple[int, Finding | None]] = []
        """Where candidates began and what they turned out to be; the next one begins behind its finding."""

    def skip(self, data: bytes, begin: int, found: list[Finding]) -> int:
        """Return at which candidate to continue, equal to the one at `begin` and reached from there by whole periods.

        Call it after every `CANDIDATES` decided ones: it forgets them. Adds the findings of the skipped periods to
        `found`.
        """
        give_way()
        decided = self.decided.copy()
        self.decided.clear()
        seen = data[begin - _LEFT : begin + self._view]
        if len(seen) < _LEFT + self._view:
            return begin
        for number in range(len(decided) - 1, -1, -1):
            former = decided[number][0]
            if former >= _LEFT and data.startswith(seen, former - _LEFT):
                period = begin - former
                times = max(0, (_repeated_until(data, begin, period) - begin - self._view) // period)
                found += _again([finding for _, finding in decided[number:] if finding], period, times)
                return begin + period * times
        return begin


def _again(findings: list[Finding], period: int, times: int) -> Iterator[Finding]:
    """Yield the findings of one period as many times, each time one period later."""
    if findings:
        for number, shift in enumerate(range(period, period * times + 1, period)):
            if number % _AT_ONCE == 0:
                give_way()
            for finding in findings:
                start, end = finding.start + shift, finding.end + shift
                yield Finding(finding.rule_id, finding.category, finding.severity, start, end)


def _repeated_until(data: bytes, at: int, period: int) -> int:
    """Return the first position from `at` on whose byte is not equal to the one a period before."""
    size = _BLOCK
    while size:
        if at + size <= len(data) and data[at : at + size] == data[at - period : at + size - period]:
            at += size
        else:
            size //= 2
    return at
