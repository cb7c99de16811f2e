"""Reads segments: bounded pieces of a file in, records out. Changes nothing, so it may run on any thread.

A batch is read by `scan_intact`, as far as frames are contiguous. It ends where that stops, and the next one begins
there; if that has no whole frame at its start, it is read by the scanner, which handles damage and large records.

Failure mode: damaged bytes are skipped and counted. A file that cannot be read (EIO) raises, because it may be readable
later; a file that was removed counts as damage, because it will not come back, unless it is kept open.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from proxy.journal.frames import INTENT, Record, Scanner, scan_intact
from proxy.journal.segment import Position, Segment

_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Batch:
    """Finals and contents of one segment in file order. May be empty, if only intents or damage were passed."""

    records: Sequence[Record]
    end: Position
    """Where the next batch begins once this one is committed."""
    damaged_frames: int = 0
    damaged_bytes: int = 0


def scan_file(segment: Segment, start: int, end: int, scanner: Scanner) -> Generator[Record, None, None]:
    """Yield the records between two offsets of a segment that is no longer written there.

    `scanner`: a fresh one for `start`; its counters are valid for what was yielded so far.

    Raises:
        OSError: the file cannot be opened or read.
    """
    fd = segment.open()
    try:
        at = start
        while data := os.pread(fd, min(max(_READ_BYTES, scanner.missing_bytes), end - at), at):
            at += len(data)
            yield from scanner.feed(data)
        yield from scanner.finish()
    finally:
        os.close(fd)


def read_segment(segment: Segment, start: int, max_records: int, max_bytes: int) -> Batch:
    """Return the next finals and contents of `segment` from `start` on, at least one if there are any.

    `max_bytes`: to be read at once; a single larger record is returned alone. Takes about 1 ms with one MiB.

    Raises:
        OSError: the file is there but cannot be read.
    """
    size = segment.size
    try:
        records, end = _read_run(segment, start, min(size, start + max_bytes), max_records)
        if records or end == size:
            return Batch(records, Position(segment.number, end))
        return _search(segment, end, size, max_records, max_bytes)
    except FileNotFoundError:
        return Batch((), Position(segment.number, size), 1, size - start)


def _read_run(segment: Segment, start: int, end: int, max_records: int) -> tuple[list[Record], int]:
    """Return the finals and contents of the intact frames from `start` on, and where that run ends."""
    taken: list[Record] = []
    at = start
    fd = segment.open()
    try:
        while at < end and len(taken) < max_records:
            records, run_end = scan_intact(os.pread(fd, min(_READ_BYTES, end - at), at), at, max_records - len(taken))
            if run_end == at:
                break
            taken += records
            at = run_end
    finally:
        os.close(fd)
    return taken, at


def _search(segment: Segment, start: int, size: int, max_records: int, max_bytes: int) -> Batch:
    """Return the next finals and contents of a segment, with whatever is between them skipped."""
    scanner = Scanner(start)
    taken: list[Record] = []
    room = max_bytes
    # Damage is reported with the record after it: what follows the last record taken is seen again next time.
    damage = (0, 0)
    with closing(scan_file(segment, start, size, scanner)) as records:
        for record in records:
            if record.kind is INTENT:
                continue
            room -= len(record.body)
            if taken and (room < 0 or len(taken) == max_records):
                return Batch(taken, Position(segment.number, taken[-1].end_offset), *damage)
            taken.append(record)
            damage = (scanner.damaged_frames, scanner.damaged_bytes)
    return Batch(taken, Position(segment.number, size), scanner.damaged_frames, scanner.damaged_bytes)
