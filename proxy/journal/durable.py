"""Keeps every admitted record until it is committed, even if the disk fails.

    put ----> active segment --(committed, no open intent, moved intents synced)--> deleted
     |  ^
     v  | as soon as the disk accepts writes again
    held in memory <---- unsynced records of a segment whose fdatasync failed

Rules of the file:
- A failed write leaves the record in `held`, and later records queue behind it.
- A failed fdatasync makes everything since the last successful one suspect: it is read and written to a new segment.
- An open intent never keeps an old segment: it is moved, and the old copy is deleted once the new one is safe. Only
  on a full disk the old segment is deleted first, because nothing else can make room for the move.

Failure mode: see `healthy`. Not thread-safe; other threads may read segments meanwhile.
"""

import time
from collections import deque

from proxy.journal.chain import Chain
from proxy.journal.frames import CLOSING, INTENT, Kind, Scanner, encode
from proxy.journal.intents import OpenIntents
from proxy.journal.reader import scan_file
from proxy.journal.segment import START, Position, Segment
from proxy.journal.sync import Syncer

_REPAIR_PAUSE_S = 1.0
_UNWRITTEN = Position(1 << 63, 0)
"""The position of held records before they are written: after everything."""


class DurableLog:
    """The chain of segments and the state of its records."""

    def __init__(self, chain: Chain, syncer: Syncer, intents: OpenIntents, next_seq: int, cursor: Position) -> None:
        self.chain = chain
        self.intents = intents
        self.cursor = cursor
        """Everything before it is committed."""
        self.pending = 0
        """Uncommitted finals and contents in files."""
        self.unread_bytes = 0
        """Size of everything after the cursor, including intents."""
        self.repeated = 0
        """Records rewritten while they were being stored: committed twice, which is harmless."""
        self.held: deque[tuple[Kind, bytes, bytes]] = deque()
        self.held_bytes = 0
        self._syncer = syncer
        self._seq = next_seq
        self._moved_until = START
        self._repair_at = 0.0
        self._write_failed = False
        self._recount()

    @property
    def healthy(self) -> bool:
        """The latest write and the latest sync succeeded, and nothing waits to be rewritten."""
        return not (self._write_failed or self._syncer.failures or self.is_troubled)

    @property
    def is_troubled(self) -> bool:
        """`mend` has work to do."""
        return bool(self.held or self._syncer.failed)

    @property
    def sync_is_broken(self) -> bool:
        """A second segment in a row could not be synced, so the disk is at fault and not a single file."""
        return self._syncer.failures > 1

    def append(self, kind: Kind, trace_id: bytes, body: bytes) -> bool:
        """Write one record, after those that are held; tell whether it is in a file now."""
        if self.held or self._syncer.failed:
            self.mend()
            if self.held:
                return False
        is_written = self._put(kind, trace_id, body)
        if self._syncer.failed:
            self.mend()
        return is_written

    def hold(self, kind: Kind, trace_id: bytes, body: bytes) -> None:
        """Keep a record in memory until the disk accepts it."""
        self.held.append((kind, trace_id, body))
        self.held_bytes += len(body)

    def mend(self) -> None:
        """Repair what disk failures left behind, as far as possible, and delete unneeded segments."""
        if self._syncer.failed and time.monotonic() >= self._repair_at:
            self._repair_all()
        self._write_held()
        self._release()

    def commit(self, end: Position, records: int) -> None:
        """Record that everything before `end` is stored for good; `records`: how many of it were read in one batch."""
        self.cursor = max(self.cursor, end)
        segment = self.chain.get(end.segment)
        if segment is None or end.offset > segment.size:  # it was truncated since the batch was read
            self.repeated += max(records - (0 if segment is None else segment.pending), 0)
        if segment is not None:
            # At the end nothing is pending, however many records a damaged disk has lost.
            at_end = end.offset >= segment.size
            segment.pending = 0 if at_end else max(segment.pending - records, 0)
        self._release()
        self._recount()

    def close(self) -> None:
        """Write and sync what is left."""
        self.mend()
        self.chain.seal()
        self._syncer.stop()

    def _put(self, kind: Kind, trace_id: bytes, body: bytes) -> bool:
        segment = self._write(encode(self._seq, kind, trace_id, body))
        if segment is None:
            return False
        self._seq += 1
        if kind is INTENT:
            self.intents.begin(trace_id, body, segment)
            return True
        segment.pending += 1
        self.pending += 1
        if kind in CLOSING:
            self.intents.end(trace_id, segment, segment.size)
        return True

    def _write(self, frames: bytes) -> Segment | None:
        segment = self.chain.write(frames)
        self._write_failed = segment is None
        if segment is not None:
            self.unread_bytes += len(frames)
        return segment

    def _recount(self) -> None:
        ahead = [segment for segment in self.chain if segment.number >= self.cursor.segment]
        self.pending = sum(segment.pending for segment in ahead)
        read = self.cursor.offset if ahead and ahead[0].number == self.cursor.segment else 0
        self.unread_bytes = max(sum(segment.size for segment in ahead) - read, 0)

    def _write_held(self) -> None:
        if not self.held:
            return
        while self.held:
            kind, trace_id, body = self.held[0]
            if not self._put(kind, trace_id, body):
                return
            self.held.popleft()
            self.held_bytes -= len(body)
        self._settle_unwritten()

    def _settle_unwritten(self) -> None:
        end = self.chain.end
        self._moved_until = min(self._moved_until, end)
        for segment in self.chain:
            segment.finals_until = min(segment.finals_until, end)

    def _repair_all(self) -> None:
        if self.sync_is_broken:
            self._repair_at = time.monotonic() + _REPAIR_PAUSE_S
        before = self._seq
        for _ in range(len(self._syncer.failed)):
            self._repair(self._syncer.failed.popleft())
        if self._seq == before and not self.held:
            # Nothing had to be rewritten, so nothing would ever use the disk again: let the next intent try it.
            self._syncer.failures = min(self._syncer.failures, 1)

    def _repair(self, segment: Segment) -> None:
        """Rewrite what the failed fdatasync of `segment` may have lost."""
        if self.chain.is_active(segment):
            self.chain.seal()
        safe = max(segment.synced, self._committed_in(segment))
        try:
            suspect = list(scan_file(segment, safe, segment.size, Scanner(safe)))
        except OSError:
            # What cannot be read cannot be rewritten: it stays in place, for the reader to try.
            return
        self._hold_intents(segment)
        lost = [record for record in suspect if record.kind is not INTENT]
        for record in lost:
            self.hold(record.kind, record.trace_id, record.body)
        segment.cut(safe)
        segment.pending = max(segment.pending - len(lost), 0)
        self._expect_rewrite(segment.end)
        if segment.own_finals_until > safe:
            segment.finals_until = _UNWRITTEN
        self._write_held()
        if not self.held:
            self._settle_unwritten()
            self.chain.trim(segment)
        self._recount()

    def _committed_in(self, segment: Segment) -> int:
        if segment.number == self.cursor.segment:
            return min(self.cursor.offset, segment.size)
        return 0 if segment.number > self.cursor.segment else segment.size

    def _expect_rewrite(self, cut: Position) -> None:
        """Let everything that waits for a position after `cut` wait until the held records have a position again."""
        # All open intents are taken out, also those before the cut.
        if self._moved_until.segment == cut.segment:
            self._moved_until = _UNWRITTEN
        for segment in self.chain:
            if segment.finals_until.segment == cut.segment and segment.finals_until > cut:
                segment.finals_until = _UNWRITTEN

    def _release(self) -> None:
        """Delete the oldest segments that are no longer needed. Passes over the chain at most once."""
        for _ in self.chain:
            oldest = self.chain.oldest_sealed()
            if oldest is None or not self._is_spent(oldest):
                break
            if oldest.open_intents and not (self._has_dead_space() and self._move_intents(oldest)):
                break
            if not self._moved_is_durable():
                break
            self.cursor = max(self.cursor, self.chain.delete(oldest))
        self._write_held()

    def _has_dead_space(self) -> bool:
        """Tell whether moving intents can free space: not if the files contain little else.

        A segment's worth of it is not worth a move, unless the disk is full: what is held waits for any space then.
        """
        is_short = bool(self.held) and self.chain.full_disk
        least = 0 if is_short else self.chain.segment_bytes
        return self.chain.disk_bytes > 2 * self.intents.disk_bytes() + least

    def _is_spent(self, segment: Segment) -> bool:
        return segment.pending == 0 and segment.finals_until <= self.cursor

    def _move_intents(self, segment: Segment) -> bool:
        """Rewrite the open intents of `segment`, with one write; tell whether the segment may be deleted."""
        intents = self.intents.held_by(segment)
        frames = b"".join(encode(self._seq + i, INTENT, *intent) for i, intent in enumerate(intents))
        target = self._write(frames)
        if target is None:
            return self._give_way(segment)
        self._seq += len(intents)
        for trace_id, body in intents:
            self.intents.begin(trace_id, body, target)
        self._moved_until = target.end
        return True

    def _give_way(self, segment: Segment) -> bool:
        if not self.chain.full_disk:
            return False
        self._hold_intents(segment)
        return True

    def _hold_intents(self, segment: Segment) -> None:
        """Take the open intents of `segment` into memory, except those whose final waits there already."""
        closed = {key for kind, key, _ in self.held if kind in CLOSING}
        for trace_id, body in self.intents.detach(segment):
            if trace_id not in closed:
                self.hold(INTENT, trace_id, body)

    def _moved_is_durable(self) -> bool:
        if self._moved_until == _UNWRITTEN:
            return False
        target = self.chain.get(self._moved_until.segment)
        return target is None or self._syncer.is_durable(target, self._moved_until.offset)
