"""The object that every relay works on: one provider's answer on its way to the client.

Rule of the package: a relay moves bytes and counts; it decides nothing about policy, money or errors. Before it sends
the last byte it calls `seal`, which settles and journals: an answer received in full is always recorded.
"""

import time
from collections.abc import Callable
from typing import Literal

from proxy.errors import PolicyViolation, ProxyError, QuotaExceeded
from proxy.exchange import Allowance, Attempt, Capture, Dialect, Headers, UpstreamReply, first_values
from proxy.findings import Finding
from proxy.scanners import OutputScanner

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


class Answer:
    """An answer whose head has arrived and whose body is still to be read.

    `headers`: for the client; the downstream side adds framing. `fields`: the provider's own, first values by
    lower-case name. `allowance`: how much a stream may still generate; `None`: no limit. `asked_for_usage`: the client
    itself requested usage in the stream. `scanner`: scans the generated text; `None`: it is not scanned.
    `is_counted`: it is complete, edited and counted, so that nothing has to be read from it.
    """

    __slots__ = (
        "allowance", "asked_for_usage", "at_limit", "attempt", "begins_as_text", "capture", "content_encoding",
        "content_type", "dialect", "has_body", "headers", "is_counted", "is_events", "is_json", "length", "mid_event",
        "reply", "scanner", "seal", "status", "strip_usage",
    )  # fmt: skip

    def __init__(
        self,
        reply: UpstreamReply,
        headers: Headers,
        attempt: Attempt,
        *,
        dialect: Dialect,
        strip_usage: bool,
        is_head: bool,
        seal: Callable[[], None],
        capture: Capture | None,
        allowance: Allowance | None = None,
        at_limit: AtLimit = "finish",
        asked_for_usage: bool = False,
        scanner: OutputScanner | None = None,
        is_counted: bool = False,
    ) -> None:
        fields = first_values(reply.headers)
        length = fields.get(b"content-length", b"")
        encoding = fields.get(b"content-encoding", b"").strip().lower()
        self.reply = reply
        self.headers = headers
        self.attempt = attempt
        self.dialect = dialect
        self.strip_usage = strip_usage
        self.seal = seal
        self.capture = capture
        self.allowance = allowance
        self.at_limit = at_limit
        self.asked_for_usage = asked_for_usage
        self.scanner = scanner
        self.is_counted = is_counted
        self.status = reply.status
        self.has_body = not is_head and reply.status not in NO_BODY_STATUSES
        self.length = int(length) if length.isdigit() else None
        self.content_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        self.is_json = self.content_type == b"application/json" or self.content_type.endswith(b"+json")
        # Some providers label event streams differently; one that we must edit is what we requested.
        self.is_events = self.content_type == EVENT_STREAM or (strip_usage and reply.status == 200 and not self.is_json)
        self.content_encoding = b"" if encoding == b"identity" else encoding
        self.begins_as_text = False
        """Its label does not say that it is text, but its first bytes do (`mislabelled`)."""
        self.mid_event = False
        """A stream event has been sent in part: nothing well-formed can follow."""

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
