"""A disk that misbehaves, made with the means of the operating system, and journals on it."""

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config import schema
from proxy.journal.frames import Record
from proxy.journal.segments import Journal

SEGMENT_BYTES = 65_536


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def make_settings(**changes: Any) -> schema.Journal:
    return schema.Journal(**{"segment_bytes": SEGMENT_BYTES, "fsync": "never", "fsync_interval_ms": 1, **changes})


@contextmanager
def opened(directory: Path, **changes: Any) -> Iterator[Journal]:
    journal = Journal(directory, make_settings(**changes))
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let every write behind `size` bytes of a file fail with EFBIG, and a write across it be short: a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """Stands between the journal and fdatasync: fails on request, and waits for the syncs to come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = 0
        """How many of the next syncs fail."""
        self.passes = 0
        """How many work before those."""
        self.delay_s = 0.0
        self.syncs = 0
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    def _fdatasync(self, fd: int) -> None:
        time.sleep(self.delay_s)
        self.syncs += 1
        if self.passes:
            self.passes -= 1
        elif self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "injected")
        self._real(fd)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.001)


def drain(journal: Journal, max_records: int = 100, max_bytes: int = 1 << 20) -> list[Record]:
    """Read and commit everything there is."""
    records: list[Record] = []
    while journal.depth:
        batch = journal.read_batch(max_records, max_bytes)
        records += batch.records
        journal.commit(batch)
    return records


def segment_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.journal"))
