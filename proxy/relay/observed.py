"""Observes a stream that is not to be changed: a scanner records findings while the meter is updated.

Rule of the file: nothing is held, changed or ended here. Uses the scan of `scanned` and ignores its output.
"""

from typing import Any

from proxy.nouns.scanners import OutputScanner
from proxy.openai import json_steps, lenient
from proxy.openai.deltas import StreamObserver
from proxy.openai.sse import Event
from proxy.relay.answer import Answer
from proxy.relay.scanned import ScannedStream


class StreamWatcher(StreamObserver):
    """Reads one stream into the meter, and passes each event to a scanner that only records."""

    def __init__(self, answer: Answer, scanner: OutputScanner) -> None:
        super().__init__(answer.dialect, answer.attempt.meter)
        self._scan: ScannedStream[bytes] = ScannedStream(answer.dialect, scanner, _unchanged)

    def observe(self, event: Event) -> dict[str, Any] | None:
        """Count one event; return its document."""
        document = super().observe(event)
        known = document if document is not None else lenient.read_container(event.data)
        self._scan.take(b"", event.data, event.name, known)
        if document is None:
            json_steps.let_go(known, event.data)
        return document

    def end(self) -> None:
        """Record what is decided by the end of channels."""
        self._scan.end()


def _unchanged(event: bytes, _data: bytes) -> bytes:
    return event
