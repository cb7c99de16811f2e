"""The age of the oldest waiting record, without a timestamp in every record.

A mark (position, time) means: what begins at or after this position arrived at that time or later. Marks are made by a
regular tick, not by records, and every second one is dropped when there are many. So the age is never underestimated,
and overestimated by one tick or, in a very long outage, by a few.
"""

from collections import deque

from proxy.journal.segment import Position

_MOST_MARKS = 1024


class Ages:
    """Marks along the journal. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[Position, float]] = deque()

    def note(self, end: Position, now: float) -> None:
        """Record that the journal ends at `end` at `now`. Neither ever decreases."""
        if self._marks and self._marks[-1][0] == end:
            self._marks.pop()
        elif len(self._marks) >= _MOST_MARKS:
            self._marks = deque(list(self._marks)[::2])
        self._marks.append((end, now))

    def oldest_s(self, cursor: Position, now: float) -> float:
        """Return the age of the record at `cursor`; only meaningful while something waits there."""
        while len(self._marks) > 1 and self._marks[1][0] <= cursor:
            self._marks.popleft()
        return max(now - self._marks[0][1], 0.0) if self._marks else 0.0
