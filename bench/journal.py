"""Measure the journal alone: CPU of this thread per request, on the disk that holds the temporary directory.

One request is an intent of 500 bytes and a final of 1,500. "python only" writes to nowhere: the difference to "append"
is the system's. The smallest figures of a few runs are shown.

Run it with `python -m bench.journal`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from proxy.config import schema
from proxy.journal import chain
from proxy.journal.frames import Kind, Scanner
from proxy.journal.reader import scan_file
from proxy.journal.segment import CLOSED, Segment
from proxy.journal.segments import Journal
from tests.journal.disk import segment_files

REQUESTS = 5_000
INTENT, FINAL = b"i" * 500, b"f" * 1_500
SETTINGS = schema.Journal(fsync="never", segment_bytes=1 << 26)


class Nowhere:
    """Stands in for `os` where the journal writes."""

    def write(self, fd: int, data: bytes) -> int:
        return len(data)


def cost_us(work: Callable[[], object]) -> float:
    before = time.thread_time()
    work()
    return (time.thread_time() - before) * 1e6 / REQUESTS


def append_all(journal: Journal) -> None:
    for number in range(REQUESTS):
        trace_id = number.to_bytes(16, "big")
        journal.append_intent(trace_id, INTENT)
        journal.append_final(trace_id, FINAL)


def read_all(journal: Journal) -> None:
    while journal.depth:
        journal.commit(journal.read_batch(SETTINGS.batch_records, SETTINGS.batch_bytes))


def search_all(path: Path) -> None:
    size = path.stat().st_size
    records = scan_file(Segment(1, path, size, CLOSED), 0, size, Scanner())
    assert sum(record.kind is Kind.FINAL for record in records) == REQUESTS


def measure(directory: Path) -> dict[str, float]:
    costs = {}
    journal = Journal(directory / "real", SETTINGS)
    journal.open()
    costs["append"] = cost_us(lambda: append_all(journal))
    costs["read back, by a scanner"] = cost_us(lambda: search_all(segment_files(directory / "real")[0]))
    costs["read back and commit"] = cost_us(lambda: read_all(journal))
    journal.close()
    unwritten = Journal(directory / "unwritten", SETTINGS)
    unwritten.open()
    vars(chain)["os"] = Nowhere()
    try:
        costs["append, python only"] = cost_us(lambda: append_all(unwritten))
    finally:
        vars(chain)["os"] = os
    unwritten.close()
    return costs


def main() -> None:
    runs = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as name:
            runs.append(measure(Path(name)))
    for what in runs[0]:
        print(f"{what:<28} {min(run[what] for run in runs):5.2f} us per request")


if __name__ == "__main__":
    main()
