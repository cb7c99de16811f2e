"""Makes written records safe against power loss: grouped on a thread, at once, or never.

Rule of the file: a descriptor on which fdatasync failed is never synced again, because the kernel has forgotten which
pages were lost and would report success. The segment goes to `failed`; its owner rewrites the unsynced records.

With `interval`, one thread does all syncing and all closing, so no descriptor can be closed, or its number reused,
during an fdatasync. The thread shares with its owner the queue of retired segments, the queue of failed ones (both are
appended at one end and taken from the other), each segment's `synced`, and `wants_news`: an append takes a lock only if
the thread has looked since the last one that did.

Source: fsync(2); PostgreSQL's fsyncgate, LWN 752063.
"""

import os
from collections import deque
from threading import Event, Thread
from typing import Literal

from proxy.journal.segment import CLOSED, Segment

SyncMode = Literal["interval", "always", "never"]


class Syncer:
    """Syncs segments in one of three modes. `directory_fd` makes the names of new files durable."""

    def __init__(self, mode: SyncMode, interval_s: float, directory_fd: int) -> None:
        self.failed: deque[Segment] = deque()
        self.failures = 0
        """Failures in a row, over all segments."""
        self.wants_news = mode != "never"
        """`written` must be called after the next write."""
        self._mode = mode
        self._interval_s = interval_s
        self._directory_fd = directory_fd
        self._active: Segment | None = None
        self._retired: deque[Segment] = deque()
        self._dirty = Event()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="journal-sync", daemon=True)
        if mode == "interval":
            self._thread.start()

    def begin(self, segment: Segment) -> None:
        """Sync `segment` from now on: the one that is written next."""
        self._active = segment

    def written(self, segment: Segment) -> None:
        """Handle growth of `segment`, the one begun last. Waits for the disk only with `always`."""
        if self._mode == "interval":
            self.wants_news = False
            self._dirty.set()
        else:
            self._sync(segment)

    def retire(self, segment: Segment) -> None:
        """Sync and close a segment that will not grow any more."""
        if self._mode == "interval":
            self._retired.append(segment)
            self._dirty.set()
        else:
            segment.close()

    def is_durable(self, segment: Segment, offset: int) -> bool:
        """Tell whether `segment` is safe up to `offset`, as far as this mode guarantees anything."""
        return self._mode == "never" or segment.synced >= offset

    def stop(self) -> None:
        """Sync and close what is left, then end the thread."""
        if self._mode == "interval":
            self._stopping.set()
            self._dirty.set()
            self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._dirty.wait()
            self._stopping.wait(self._interval_s)
            # In this order, and before looking: what is written from here on sets it again. The stop request is read
            # after the event is cleared, which may have lost its signal.
            self._dirty.clear()
            stopping = self._stopping.is_set()
            self.wants_news = True
            if (active := self._active) is not None:
                self._sync(active)
            while self._retired:
                segment = self._retired.popleft()
                self._sync(segment)
                segment.close()

    def _sync(self, segment: Segment) -> None:
        size = segment.size
        if segment.fd == CLOSED or segment.sync_failed or segment.synced >= size:
            return
        try:
            os.fdatasync(segment.fd)
            if segment.synced == 0:
                os.fsync(self._directory_fd)
        except OSError:
            segment.sync_failed = True
            self.failed.append(segment)
            self.failures += 1
        else:
            segment.synced = size
            self.failures = 0
