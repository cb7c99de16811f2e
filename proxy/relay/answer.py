"""The object that every relay works on: one provider's answer on its way to the client.

Rule of the package: a relay moves bytes and counts; it decides nothing about policy, money or errors. Before it sends
the last byte it calls `seal`, which settles and journals: an answer received in full is always recorded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from proxy.errors import PolicyViolation, ProxyError, QuotaExceeded
from proxy.exchange import Allowance, Attempt, Capture, Dialect, Headers, UpstreamReply
from proxy.nouns.findings import Finding
from proxy.nouns.scanners import OutputScanner
from proxy.openai.decoding import coding_of

EVENT_STREAM = b"text/event-stream"
NO_BODY_STATUSES = frozenset({204, 304})
AtLimit = Literal["finish", "error"]
"""How a stream is ended by its allowance: as at its maximum length, or with an error event."""


def reason_of(allowance: Allowance) -> ProxyError:
    """Return the error for the client when `allowance` refuses more text."""
    return allowance.error or QuotaExceeded("Your quota is used up: the rest of this answer was not generated.")


def forbidden(place: str, found: Finding) -> PolicyViolation:
    """Return the error for a client whose answer was blocked."""
    return PolicyViolation(
        f"The policy stops this answer: {place} holds what it does not allow ({found.rule_id}).",
        param=place,
        rules=(found.rule_id,),
    )


def not_scannable() -> PolicyViolation:
    """Return the error for a client whose answer could not be scanned although the policy requires it."""
    error = PolicyViolation(
        "The policy stops this answer: a part of it cannot be scanned, and what is not scanned does not pass.",
        code="answer_not_scannable",
    )
    error.http_status = 502  # the request is not at fault
    return error


@dataclass(slots=True, eq=False)
class Answer:
    """An answer whose head has arrived and whose body is still to be read."""

    reply: UpstreamReply
    headers: Headers
    """For the client; the downstream side adds framing."""
    attempt: Attempt
    dialect: Dialect
    strip_usage: bool
    is_head: bool
    seal: Callable[[], None]
    capture: Capture | None
    allowance: Allowance | None = None
    """How much a stream may still generate; `None`: no limit."""
    at_limit: AtLimit = "finish"
    asked_for_usage: bool = False
    """The client itself requested usage in the stream."""
    scanner: OutputScanner | None = None
    """Scans the generated text; `None`: it is not scanned."""
    is_counted: bool = False
    """It is complete, edited and counted, so that nothing has to be read from it."""
    begins_as_text: bool = False
    """Its label does not say that it is text, but its first bytes do (`mislabelled`)."""
    mid_event: bool = False
    """A stream event has been sent in part: nothing well-formed can follow."""
    status: int = field(init=False)
    has_body: bool = field(init=False)
    length: int | None = field(init=False)
    content_type: bytes = field(init=False)
    content_encoding: bytes = field(init=False)
    is_json: bool = field(init=False)
    is_events: bool = field(init=False)

    def __post_init__(self) -> None:
        """Read the head."""
        fields = self.reply.fields
        status = self.status = self.reply.status
        self.has_body = not self.is_head and status not in NO_BODY_STATUSES
        length = fields.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() else None
        kind = self.content_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        self.is_json = kind == b"application/json" or kind.endswith(b"+json")
        # Some providers label event streams differently; one that we must edit is what we requested.
        self.is_events = kind == EVENT_STREAM or (self.strip_usage and status == 200 and not self.is_json)
        self.content_encoding = coding_of(self.reply)

    @property
    def can_end_with_error(self) -> bool:
        """True if a well-formed error event can still follow: in a stream, between two events."""
        meter = self.attempt.meter
        return self.is_events and not self.mid_event and not meter.terminated and not meter.cut

    def count(self, piece: bytes) -> None:
        """Count a piece of the body that passes unchanged."""
        self.note_first_byte()
        self.attempt.meter.response_bytes += len(piece)
        self.keep(piece)

    def keep(self, data: bytes) -> None:
        """Capture what the client gets, if that is on. Before `seal`, which records what was captured until then."""
        if self.capture is not None:
            self.capture.add(data)

    def note_first_byte(self) -> None:
        """Record when the body began to arrive."""
        if self.attempt.first_byte_at is None:
            self.attempt.first_byte_at = time.monotonic()
