"""The nouns of the policy: what was found in a text, the action taken, and the verdict on an exchange.

Rule of the file: nothing here contains the matched text or any part of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeVar

from proxy.event_loop.fair_threads import give_way

Category = Literal["secret", "pii", "keyword", "command"]
Severity = Literal["high", "medium", "low"]
Action = Literal["allow", "flag", "redact", "block"]
Direction = Literal["prompt", "output"]
_K = TypeVar("_K")
STEP: Final = 1000
"""Findings handled in one call of C. Half a million keep the interpreter from other threads for 50 ms."""


class Finding(NamedTuple):
    """One match of a rule. It never contains the text itself."""

    rule_id: str
    category: Category
    severity: Severity
    start: int
    end: int


class Sighting(NamedTuple):
    """A finding and its place in an exchange."""

    finding: Finding
    """Offsets in characters of the text at `place`."""
    action: Action
    direction: Direction
    place: str
    """JSON path: `messages[2].content`, `choices[0].delta.content`. Contains nothing that a client could choose."""


class Unscanned(NamedTuple):
    """A part of a request or an answer that could not be scanned."""

    direction: Direction
    place: str
    reason: str
    """One of a closed set: `media`, `binary`, `compressed`, `malformed`, `nested`, `too_large` ..."""


@dataclass(slots=True)
class Verdict:
    """The policy's verdict on one exchange. Scanners add to it while bytes pass; the record reads it at the end."""

    version: str
    """Identifies the rules and actions in force."""
    max_kept: int
    """Bounds `sightings` and `unscanned`; the counts cover everything."""
    sightings: list[Sighting] = field(default_factory=list)
    unscanned: list[Unscanned] = field(default_factory=list)
    counts: dict[tuple[Direction, str, Action], int] = field(default_factory=dict)
    """Number of findings by direction, rule and action."""
    missed: dict[tuple[Direction, str], int] = field(default_factory=dict)
    """Number of parts that could not be scanned, by direction and reason."""
    scanned_characters: dict[Direction, int] = field(default_factory=dict)
    """Characters scanned; a direction that is missing was not scanned."""
    hurried: dict[str, int] = field(default_factory=dict)
    """Events of an answer released without their undecided end because others waited too long, by reason."""
    faults: int = 0
    """Scans that failed although the configuration let the text pass."""

    def add(self, sighting: Sighting) -> None:
        """Record a finding. Allowed ones leave no trace."""
        if sighting.action == "allow":
            return
        _count(self.counts, (sighting.direction, sighting.finding.rule_id, sighting.action))
        if len(self.sightings) < self.max_kept:
            self.sightings.append(sighting)

    def miss(self, unscanned: Unscanned) -> None:
        """Record a part that could not be scanned."""
        _count(self.missed, (unscanned.direction, unscanned.reason))
        if len(self.unscanned) < self.max_kept:
            self.unscanned.append(unscanned)

    def join(self, part: "Verdict") -> None:
        """Add what was recorded off the loop, in a thread. Cost: the kinds of findings and what is kept of them."""
        for direction, characters in part.scanned_characters.items():
            self.saw(direction, characters)
        for found, count in part.counts.items():
            _count(self.counts, found, count)
        for missed, count in part.missed.items():
            _count(self.missed, missed, count)
        self.sightings += part.sightings[: max(self.max_kept - len(self.sightings), 0)]
        self.unscanned += part.unscanned[: max(self.max_kept - len(self.unscanned), 0)]

    def move_to(self, whole: "Verdict") -> None:
        """Add everything to `whole`, and begin anew."""
        whole.join(self)
        for recorded in (self.sightings, self.unscanned, self.counts, self.missed, self.scanned_characters):
            recorded.clear()

    def hurry(self, reason: str) -> None:
        """Record that an event was released without its undecided end."""
        _count(self.hurried, reason)

    def saw(self, direction: Direction, characters: int) -> None:
        """Record how much text was scanned."""
        _count(self.scanned_characters, direction, characters)


def _count(counts: dict[_K, int], key: _K, more: int = 1) -> None:
    counts[key] = counts.get(key, 0) + more


def in_steps(size: int) -> Iterator[slice]:
    """Yield slices that together are all of a list of `size` findings; other threads may work between them."""
    for at in range(0, size, STEP):
        give_way()
        yield slice(at, at + STEP)


def let_go(findings: Sequence[Any]) -> None:
    """Free findings or sightings in steps, if they are in a list."""
    if isinstance(findings, list):
        while findings:
            give_way()
            del findings[-STEP:]
