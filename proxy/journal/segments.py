"""The journal: a durable queue in files between requests and PostgreSQL.

    append_intent ---> [ segment ]--[ segment ]--[ active ]
    append_final  --->       ^ cursor: all before it is committed
    append_content           '-- read_batch --> writer --> commit

Rules of the file:
- An append is one write and never waits. What was appended survives the end of the process; a power loss loses at most
  what `fsync` permits.
- A final that belongs to an intent is never lost: if the disk refuses it, it waits in memory (`_held`) and is written
  as soon as the disk works. Meanwhile no new intent is admitted, so the number of waiting records is bounded.
- Records are always read back from the files, even if PostgreSQL keeps up: there is one path, in constant use.
- A segment is deleted when its finals and contents are committed, and so are the finals of all intents in it. An intent
  that stays open (a long stream) is rewritten into the active segment instead of keeping an old one.
- One thread calls everything; only `read_batch` may run on another.

Failure mode: content is dropped first, at 90 % of the space; intents at 100 %, less the room that open finals need;
finals never. A failed fdatasync moves the unsynced records to a new segment; the second in a row refuses intents. If
somebody removes the directory or files, they are made again from the open ones: the active one within a second, then
one of the others per second.

Source: docs/journal.md; flock(2).
"""

import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.config import schema
from proxy.errors import JournalUnavailable
from proxy.journal.age import Ages
from proxy.journal.chain import Chain
from proxy.journal.cursor import CursorFile
from proxy.journal.durable import DurableLog
from proxy.journal.frames import CONTENT, FINAL, FRAME_OVERHEAD, INTENT, MAX_BODY_BYTES, Kind
from proxy.journal.intents import OpenIntents
from proxy.journal.reader import Batch, read_segment
from proxy.journal.recovery import Recovery, recover
from proxy.journal.segment import START, Position, find_segments
from proxy.journal.sync import Syncer

_log = logging.getLogger(__name__)

FINAL_RESERVE_BYTES = 4096
"""Space reserved for the final of every open intent; a typical final needs half of it."""


@dataclass(frozen=True, slots=True)
class JournalStats:
    """The state of the journal, for metrics and `/readyz`."""

    records: int
    """Uncommitted finals and contents, including those held in memory."""
    accepted: int
    """Records to be committed: found at `open`, appended since, or rewritten after they were read."""
    finals: int
    """Those of them that are results of requests, appended since `open`."""
    bytes: int
    """Size of all segments on disk."""
    oldest_s: float
    """Age of the oldest uncommitted record; 0 if there is none."""
    open_intents: int
    held: int
    """Records that the disk has not accepted yet."""
    damaged_frames: int
    damaged_bytes: int
    refused: int
    """Intents that were not admitted; their requests were not started."""
    drops: Mapping[tuple[str, str], int]
    """Dropped records, by kind (intent, final, content) and reason (space, disk, size, closed)."""
    healthy: bool
    """The latest write and the latest sync succeeded, the files are in place, and nothing is held in memory."""


class Journal:
    """The queue of one process. Does nothing before `open`."""

    _log: DurableLog
    _cursor_file: CursorFile

    def __init__(self, directory: Path, settings: schema.Journal) -> None:
        self._directory = directory
        self._settings = settings
        # Reduced by one frame without its body.
        self._intent_room = settings.max_bytes - FRAME_OVERHEAD - FINAL_RESERVE_BYTES
        self._content_room = settings.max_bytes // 10 * 9 - FRAME_OVERHEAD
        self._ages = Ages()
        self._is_open = False
        self._is_misplaced = False
        """The files were removed and could not be made again."""
        self._is_incomplete = False
        """The same of a file that is no longer written to; it is still read."""
        self._taken = ExitStack()
        self._names: dict[str, tuple[int, int]] = {}
        """Name of an open file -> its descriptor and flags."""
        self._damaged_frames = self._damaged_bytes = self._refused = 0
        self._drops: Counter[tuple[str, str]] = Counter()
        self._accepted = self._finals = 0

    def open(self) -> Recovery:
        """Lock the directory for this process and read what earlier ones left.

        Blocking; takes about a second per 300 MiB of backlog. Orphans stay open until a final is appended for each.

        Raises:
            JournalUnavailable: another process uses the directory, or it cannot be read and written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fcntl.flock(self._take("lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._adopt()
        except BlockingIOError:
            self._taken.close()
            raise JournalUnavailable(
                f"the journal {self._directory} is in use by another process; stop that one, or give this one a "
                "data_dir (SIDEGATE_DATA_DIR) of its own"
            ) from None
        except OSError as error:
            self._taken.close()
            raise JournalUnavailable(f"the journal {self._directory} cannot be used: {error.strerror}") from error

    def append_intent(self, trace_id: bytes, body: bytes) -> None:
        """Record that a request is about to be sent to a provider. With `on_full: serve`, failures are only counted.

        Raises:
            JournalUnavailable: it cannot be recorded; the request must not be started.
        """
        reason = self._objection_to_intent(len(body))
        if reason is None and self._log.append(INTENT, trace_id, body):
            return
        if self._settings.on_full == "serve":
            self._drop(INTENT, reason or "disk")
            return
        self._refused += 1
        raise JournalUnavailable("The request cannot be recorded at the moment.", retry_after_s=1.0)

    def append_final(self, trace_id: bytes, body: bytes) -> None:
        """Record the result of a request. Never refused and, if its intent was admitted, never lost."""
        self._append_kept(FINAL, trace_id, body)

    def append_lease(self, lease_id: bytes, body: bytes, *, ended: bool) -> None:
        """Record what a lease returns; `ended` closes the intent of its id. Kept like a final."""
        self._append_kept(Kind.LEASE_ENDED if ended else Kind.LEASE_KEPT, lease_id, body)

    def append_content(self, trace_id: bytes, body: bytes) -> None:
        """Record captured bodies, unless space is short."""
        reason = self._objection_to_content(len(body))
        if reason is not None or not self._log.append(CONTENT, trace_id, body):
            self._drop(CONTENT, reason or "disk")
        else:
            self._accepted += 1

    def tend(self) -> None:
        """Retry what a failing disk held back, restore removed files, mark the time. Call once a second; cheap."""
        if self._is_misplaced or not self._log.chain.is_in_place():
            self._put_back()
        if not self._is_misplaced:
            self._restore_sealed()
        self._log.mend()
        self._ages.note(self._log.chain.end, time.monotonic())

    def read_batch(self, max_records: int, max_bytes: int, after: Position | None = None) -> Batch:
        """Return what follows the last commit; the same again until it is committed. May run on a thread.

        `after`: return what follows this position instead, the end of a batch.

        An empty batch whose `end` is after the cursor passes intents or damage: commit it too.

        Raises:
            OSError: a file cannot be read at the moment.
        """
        cursor = after or self._log.cursor
        for segment in self._log.chain:
            start = cursor.offset if segment.number == cursor.segment else 0
            if segment.number >= cursor.segment and start < segment.size:
                return read_segment(segment, start, max_records, max_bytes)
        return Batch((), cursor)

    def commit(self, batch: Batch) -> None:
        """Record that `batch` is stored for good; delete what is no longer needed."""
        segment = self._log.chain.get(batch.end.segment)
        if segment is not None and not segment.recovered:
            self._note_damage(batch.damaged_frames, batch.damaged_bytes)
        self._log.commit(batch.end, len(batch.records))
        self._cursor_file.store(self._log.cursor)

    def has_waiting(self, records: int, size: int) -> bool:
        """Tell whether at least so many uncommitted finals and contents, or bytes, are waiting in files."""
        log = self._log
        return log.pending >= records or log.unread_bytes >= size

    @property
    def depth(self) -> int:
        """Uncommitted finals and contents in files."""
        return self._log.pending

    @property
    def unread_bytes(self) -> int:
        """Size of everything after the cursor."""
        return self._log.unread_bytes

    @property
    def held(self) -> int:
        """Records in memory that the disk has not accepted yet."""
        return len(self._log.held)

    @property
    def cursor(self) -> Position:
        """Everything before it is committed."""
        return self._log.cursor

    @property
    def end(self) -> Position:
        """The position after the last record."""
        return self._log.chain.end

    def stats(self) -> JournalStats:
        """Return the current state."""
        log = self._log
        waiting = log.pending + len(log.held)
        return JournalStats(
            records=waiting,
            accepted=self._accepted + log.repeated,
            finals=self._finals,
            bytes=log.chain.disk_bytes,
            oldest_s=self._ages.oldest_s(log.cursor, time.monotonic()) if waiting else 0.0,
            open_intents=len(log.intents.by_id),
            held=len(log.held),
            damaged_frames=self._damaged_frames,
            damaged_bytes=self._damaged_bytes,
            refused=self._refused,
            drops=dict(self._drops),
            healthy=log.healthy and not (self._is_misplaced or self._is_incomplete),
        )

    def close(self) -> None:
        """Write and sync what is left and unlock the directory. Nothing is recorded afterwards. Idempotent."""
        if not self._is_open:
            return
        if not self._log.chain.is_in_place():
            self._put_back()
        self._log.close()
        with suppress(OSError):
            while self._log.chain.restore_sealed():
                pass
        self._log.chain.let_go()
        for kind, _, _ in self._log.held:
            self._drop(kind, "disk")
        self._log.held.clear()
        self._cursor_file.store(self._log.cursor)
        self._is_open = False
        self._taken.close()

    def _append_kept(self, kind: Kind, key: bytes, body: bytes) -> None:
        if not self._is_open or len(body) > MAX_BODY_BYTES:
            return self._drop(kind, "size" if self._is_open else "closed")
        if not self._log.append(kind, key, body):
            # Without an intent, only this bounds their number.
            if key not in self._log.intents.by_id and self._log.held_bytes >= self._settings.segment_bytes:
                return self._drop(kind, "disk")
            self._log.hold(kind, key, body)
        self._accepted += 1
        self._finals += kind is FINAL

    def _objection_to_intent(self, body_bytes: int) -> str | None:
        """Return why an intent must not be tried, if so."""
        if not self._is_open:
            return "closed"
        if body_bytes > MAX_BODY_BYTES:
            return "size"
        log = self._log
        if log.chain.disk_bytes + body_bytes + len(log.intents.by_id) * FINAL_RESERVE_BYTES > self._intent_room:
            return "space"
        is_unsafe = log.sync_is_broken or self._is_misplaced
        return "disk" if is_unsafe and self._settings.on_full == "refuse" else None

    def _objection_to_content(self, body_bytes: int) -> str | None:
        if not self._is_open:
            return "closed"
        if body_bytes > MAX_BODY_BYTES:
            return "size"
        return "space" if self._log.chain.disk_bytes + body_bytes > self._content_room else None

    def _drop(self, kind: Kind, reason: str) -> None:
        self._drops[kind.name.lower(), reason] += 1

    def _take(self, name: str, flags: int) -> int:
        fd = os.open(self._directory / name, flags, 0o600)
        self._taken.callback(os.close, fd)
        self._names[name] = (fd, flags)
        return fd

    def _put_back(self) -> None:
        """Make directory, lock, cursor and active segment again, under the same descriptors."""
        was_misplaced, self._is_misplaced = self._is_misplaced, True
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, (fd, flags) in self._names.items():
                made = os.open(self._directory / name, flags, 0o600)
                os.dup2(made, fd, inheritable=False)
                os.close(made)
            fcntl.flock(self._names["lock"][0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._log.chain.restore()
        except OSError as error:
            if not was_misplaced:
                _log.error("the journal's files were removed and cannot be restored", extra={"reason": error.strerror})
            return
        self._is_misplaced = False
        self._cursor_file.store(self._log.cursor)
        _log.error("the journal's files were removed while it was running; the latest was restored")

    def _restore_sealed(self) -> None:
        """Make one file again that is no longer written to: each is a copy, and requests wait meanwhile."""
        was_incomplete, self._is_incomplete = self._is_incomplete, True
        try:
            if self._log.chain.restore_sealed():
                _log.error("a file of the journal was removed while it was running; it was restored")
        except OSError as error:
            if not was_incomplete:
                _log.error("a file of the journal was removed and cannot be restored", extra={"reason": error.strerror})
            return
        self._is_incomplete = False

    def _adopt(self) -> Recovery:
        settings = self._settings
        self._cursor_file = CursorFile(self._take("cursor", os.O_RDWR | os.O_CREAT))
        cursor = self._cursor_file.load()
        left = tuple(find_segments(self._directory))
        last = max((segment.number for segment in left), default=cursor.segment)
        if cursor.segment > last + 1:
            # Files older than the cursor have reappeared: replay them instead of skipping them.
            cursor = START
        intents = OpenIntents()
        recovery = recover(left, cursor, intents)
        now, wall = time.monotonic(), time.time()
        for segment in left:
            self._ages.note(Position(segment.number, 0), now - max(wall - segment.path.stat().st_mtime, 0.0))
        self._note_damage(recovery.damaged_frames, recovery.damaged_bytes)
        syncer = Syncer(settings.fsync, settings.fsync_interval_ms / 1000, self._take(".", os.O_RDONLY))
        chain = Chain(self._directory, settings.segment_bytes, syncer, left, max(last, cursor.segment) + 1)
        self._log = DurableLog(chain, syncer, intents, recovery.last_seq + 1, cursor)
        self._is_open = True
        self._accepted = self._log.pending
        self.tend()
        return recovery

    def _note_damage(self, frames: int, size: int) -> None:
        """Count bytes that belong to no record, and log it: a request may have lost its trace there."""
        self._damaged_frames += frames
        self._damaged_bytes += size
        if frames:
            _log.error("a part of the journal is damaged and was skipped", extra={"frames": frames, "bytes": size})
