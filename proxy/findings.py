"""The nouns of the policy: what was found in a text, what is done about it, and what an exchange's verdict adds up to.

Rule of the file: nothing here holds the text that was found, nor any part of it.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, NamedTuple

Category = Literal["secret", "pii", "keyword", "command"]
Severity = Literal["high", "medium", "low"]
Action = Literal["allow", "flag", "redact", "block"]
Direction = Literal["prompt", "output"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. It never holds the text itself."""

    rule_id: str
    category: Category
    severity: Severity
    start: int
    end: int


class Sighting(NamedTuple):
    """A finding with what an exchange adds to it."""

    finding: Finding
    """Offsets in characters of the text at `place`."""
    action: Action
    direction: Direction
    place: str
    """Where it stood: `messages[2].content`, `choices[0].delta.content`. Holds nothing that a client could choose."""


class Unscanned(NamedTuple):
    """A part of a request or an answer that no text could be read from."""

    direction: Direction
    place: str
    reason: str
    """One of a closed set: `media`, `binary`, `compressed`, `malformed`, `nested`, `too_large` ..."""


# Most requests count nothing. A Counter is made in Python, at four times the cost (timeit).
_NO_COUNTS: Final[Callable[[], defaultdict[Any, int]]] = partial(defaultdict, int)


@dataclass(slots=True)
class Verdict:
    """What the policy says of one exchange. Who scans adds to it while bytes pass; the record reads it at the end."""

    version: str
    """Names the rules and actions that were in force."""
    max_kept: int
    """Bounds `sightings` and `unscanned`; the counts are of all."""
    sightings: list[Sighting] = field(default_factory=list)
    unscanned: list[Unscanned] = field(default_factory=list)
    counts: defaultdict[tuple[Direction, str, Action], int] = field(default_factory=_NO_COUNTS)
    """How often, by direction, rule and action."""
    missed: defaultdict[tuple[Direction, str], int] = field(default_factory=_NO_COUNTS)
    """How many parts could not be scanned, by direction and reason."""
    scanned_characters: dict[Direction, int] = field(default_factory=dict)
    """Characters looked at; a direction that is not there was not scanned."""
    hurried: defaultdict[str, int] = field(default_factory=_NO_COUNTS)
    """How often an event of an answer left without its undecided end, as others had waited too long, by reason."""
    faults: int = 0
    """Scans that failed although the configuration let the text pass."""

    def add(self, sighting: Sighting) -> None:
        """Note a finding. What is allowed leaves no mark."""
        if sighting.action == "allow":
            return
        self.counts[sighting.direction, sighting.finding.rule_id, sighting.action] += 1
        if len(self.sightings) < self.max_kept:
            self.sightings.append(sighting)

    def miss(self, unscanned: Unscanned) -> None:
        """Note a part that could not be scanned."""
        self.missed[unscanned.direction, unscanned.reason] += 1
        if len(self.unscanned) < self.max_kept:
            self.unscanned.append(unscanned)

    def saw(self, direction: Direction, characters: int) -> None:
        """Note how much text was looked at."""
        self.scanned_characters[direction] = self.scanned_characters.get(direction, 0) + characters
