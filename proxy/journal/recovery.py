"""What an earlier process left in the journal: interrupted requests, and records still to be stored.

All files are read once from beginning to end; if that finds open intents, a second time, because a final may precede
its intent if files were copied or renamed by hand: a request with a final anywhere is not interrupted. Memory is
bounded by the number of open intents, not by the size of the backlog.

Failure mode: damage is skipped and counted. A file that cannot be read stops the start: going on would charge requests
as interrupted whose finals are merely unreadable.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from proxy.journal.frames import CLOSING, Kind, Record, Scanner
from proxy.journal.intents import OpenIntents
from proxy.journal.reader import scan_file
from proxy.journal.segment import Position, Segment


@dataclass(frozen=True, slots=True)
class Recovery:
    """The state of a journal as it was found."""

    orphans: Sequence[Record]
    """Intents without a final. They stay open until a final of the same trace id is appended."""
    damaged_frames: int
    damaged_bytes: int
    backlog: int
    """Finals and contents that are not known to be committed."""
    last_seq: int


def recover(segments: Iterable[Segment], cursor: Position, intents: OpenIntents) -> Recovery:
    """Read all segments; fill `intents` and the segments' counters.

    Raises:
        OSError: a file cannot be read.
    """
    files = tuple(segments)
    found: dict[bytes, Record] = {}
    damaged_frames = damaged_bytes = backlog = last_seq = 0
    for segment in files:
        scanner = Scanner()
        for record in scan_file(segment, 0, segment.size, scanner):
            last_seq = max(last_seq, record.seq)
            if record.kind is Kind.INTENT:
                found[record.trace_id] = record
                intents.begin(record.trace_id, record.body, segment)
                continue
            if record.kind in CLOSING:
                found.pop(record.trace_id, None)
                intents.end(record.trace_id, segment, record.end_offset)
            segment.pending += Position(segment.number, record.end_offset) > cursor
        damaged_frames += scanner.damaged_frames
        damaged_bytes += scanner.damaged_bytes
        backlog += segment.pending
    if found:
        for record, segment in _finals(files):
            if found.pop(record.trace_id, None):
                intents.end(record.trace_id, segment, record.end_offset)
    return Recovery(tuple(found.values()), damaged_frames, damaged_bytes, backlog, last_seq)


def _finals(files: Iterable[Segment]) -> Iterator[tuple[Record, Segment]]:
    for segment in files:
        for record in scan_file(segment, 0, segment.size, Scanner()):
            if record.kind in CLOSING:
                yield record, segment
