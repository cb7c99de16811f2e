"""Programs for a process that will be killed. What was acknowledged over the pipe must never be lost."""

import os
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from proxy.journal.frames import Kind
from proxy.journal.segments import Journal
from tests.journal.disk import make_settings

BODY = b"y" * 300


def make_id(run: int, number: int) -> bytes:
    return run.to_bytes(8, "big") + number.to_bytes(8, "big")


def stays_open(trace_id: bytes) -> bool:
    """Tell whether the programs never finish this request."""
    return trace_id[-1] % 16 == 3


def append(directory: Path, run: int, acks: Connection) -> None:
    """Append intents, contents and finals for ever, acknowledging each."""
    journal = Journal(directory, make_settings(fsync="interval", segment_bytes=1 << 20))
    journal.open()
    for number in count():
        trace_id = make_id(run, number)
        journal.append_intent(trace_id, BODY)
        acks.send_bytes(bytes([Kind.INTENT]) + trace_id)
        if not stays_open(trace_id):
            journal.append_content(trace_id, BODY)
            acks.send_bytes(bytes([Kind.CONTENT]) + trace_id)
            journal.append_final(trace_id, BODY)
            acks.send_bytes(bytes([Kind.FINAL]) + trace_id)


def append_and_store(directory: Path, run: int, acks: Connection) -> None:
    """Append, store batches in a file, commit them: so segments are deleted and open intents moved all the time."""
    journal = Journal(directory, make_settings())
    for orphan in journal.open().orphans:
        journal.append_final(orphan.trace_id, BODY)
    stored = os.open(directory / "stored", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in count():
        trace_id = make_id(run, number)
        journal.append_intent(trace_id, BODY)
        acks.send_bytes(bytes([Kind.INTENT]) + trace_id)
        if number >= 5 and not stays_open(make_id(run, number - 5)):
            journal.append_final(make_id(run, number - 5), BODY)
            acks.send_bytes(bytes([Kind.FINAL]) + make_id(run, number - 5))
        if number % 20 == 19:
            batch = journal.read_batch(15, 1 << 20)
            os.write(stored, b"".join(b"\n" + record.trace_id.hex().encode() + b"." for record in batch.records))
            journal.commit(batch)


def hold(directory: Path, run: int, acks: Connection) -> None:
    """Open the journal and keep it."""
    journal = Journal(directory, make_settings())
    journal.open()
    journal.append_final(make_id(run, 0), BODY)
    acks.send_bytes(b"open")
    acks.recv_bytes()
