"""kill -9 at any moment: every acknowledged record is found again, and every open request is known."""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from proxy.errors import JournalUnavailable
from proxy.journal.frames import Kind
from proxy.journal.segments import Journal
from tests.journal.crash_child import append, append_and_store, hold, make_id, stays_open
from tests.journal.disk import drain, make_settings, segment_files

ROUNDS = 25
Program = Callable[[Path, int, Connection], None]
Ack = tuple[Kind, bytes]


@contextmanager
def killed_at_the_end(program: Program, directory: Path, run: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.journal.crash_child"])
    ours, theirs = context.Pipe()
    process = context.Process(target=program, args=(directory, run, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        process.close()


def run_and_kill(program: Program, directory: Path, run: int, after_s: float) -> list[Ack]:
    """Return what the process acknowledged before it was killed, `after_s` behind its first acknowledgement."""
    messages: list[bytes] = []
    with killed_at_the_end(program, directory, run) as acks:
        messages.append(acks.recv_bytes())
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline:
            messages.append(acks.recv_bytes())
    while True:
        try:
            messages.append(acks.recv_bytes())
        except (EOFError, ConnectionResetError):
            acks.close()
            return [(Kind(message[0]), message[1:]) for message in messages]


def ids(acked: list[Ack], kind: Kind) -> set[bytes]:
    return {trace_id for one, trace_id in acked if one is kind}


def test_process_when_killed_while_appending_then_all_acknowledged_records_are_there_once(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    pauses = random.Random(seed)
    acked: list[Ack] = []
    for run in range(ROUNDS):
        acked += run_and_kill(append, tmp_path, run, pauses.uniform(0, 0.02))

    journal = Journal(tmp_path, make_settings())
    recovery = journal.open()
    found = Counter((record.kind, record.trace_id) for record in drain(journal))
    orphans = Counter(record.trace_id for record in recovery.orphans)
    journal.close()

    stored = {ack for ack in acked if ack[0] is not Kind.INTENT}
    assert len(stored) > ROUNDS, seed
    assert stored <= set(found), seed
    # The record that a kill hit between its write and its acknowledgement may be there too.
    assert len(set(found) - stored) <= ROUNDS, seed
    assert set(found.values()) | set(orphans.values()) == {1}, seed
    assert {one for one in ids(acked, Kind.INTENT) if stays_open(one)} <= set(orphans), seed
    assert not ids(acked, Kind.FINAL) & set(orphans), seed
    assert ids(acked, Kind.INTENT) <= set(orphans) | {trace_id for _, trace_id in found}, seed
    assert len([one for one in orphans if not stays_open(one)]) <= ROUNDS, seed


def test_process_when_killed_while_storing_then_every_request_is_stored_and_the_disk_stays_free(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    pauses = random.Random(seed)
    acked: list[Ack] = []
    for run in range(ROUNDS):
        acked += run_and_kill(append_and_store, tmp_path, run, pauses.uniform(0, 0.04))

    journal = Journal(tmp_path, make_settings())
    recovery = journal.open()
    orphans = {record.trace_id for record in recovery.orphans}
    rows = (tmp_path / "stored").read_text().split("\n")
    stored = {bytes.fromhex(row[:-1]) for row in rows if len(row) == 33} | {r.trace_id for r in drain(journal)}
    journal.close()

    assert len(stored) > ROUNDS, seed
    assert ids(acked, Kind.FINAL) <= stored, seed
    assert ids(acked, Kind.INTENT) <= stored | orphans, seed
    assert not ids(acked, Kind.FINAL) & orphans, seed
    last_run = (ROUNDS - 1).to_bytes(8, "big")
    assert {one[:8] for one in orphans} <= {last_run}, seed
    assert len(segment_files(tmp_path)) < 8, seed


def test_directory_when_its_process_was_killed_then_it_is_free_and_before_that_it_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, make_settings())
    with killed_at_the_end(hold, tmp_path, 7) as other:
        assert other.recv_bytes() == b"open"
        with pytest.raises(JournalUnavailable, match="in use by another process"):
            journal.open()
    other.close()

    assert journal.open().backlog == 1
    assert [record.trace_id for record in drain(journal)] == [make_id(7, 0)]
    journal.close()
