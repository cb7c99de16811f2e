"""What every relay works on: one provider's answer on its way to the client.

Rule of the package: a relay moves bytes and counts; it decides nothing about policy, money or errors. Before the last
byte leaves it calls `seal`, which settles and journals: what a client has received in full is always on record.
"""

import time
from collections.abc import Callable
from typing import Literal

from proxy.errors import ProxyError, QuotaExceeded
from proxy.exchange import Allowance, Attempt, Capture, Dialect, Headers, UpstreamReply, first_values
from proxy.scanners import OutputScanner

EVENT_STREAM = b"text/event-stream"
NO_BODY_STATUSES = frozenset({204, 304})
AtLimit = Literal["finish", "error"]
"""How a stream ends that its allowance cuts: as at its maximum length, or with an error event."""


def reason_of(allowance: Allowance) -> ProxyError:
    """Return what the client is told when `allowance` says no."""
    return allowance.error or QuotaExceeded("Your quota is used up: the rest of this answer was not generated.")


class Answer:
    """An answer whose head has arrived and whose body is still with the provider.

    `headers`: what the client gets; framing is added by the downstream side. `fields`: the provider's own, first values
    by lower-case name. `allowance`: what a stream may still generate; `None`: there is no limit. `asked_for_usage`: the
    client itself asked for usage in the stream. `scanner`: looks at what the answer says; `None`: nobody does.
    `is_counted`: it is here as a whole, edited and counted: there is nothing left to read in it.
    """

    __slots__ = (
        "allowance", "asked_for_usage", "at_limit", "attempt", "capture", "content_encoding", "content_type", "dialect",
        "has_body", "headers", "is_counted", "is_events", "is_json", "length", "mid_event", "reply", "scanner", "seal",
        "status", "strip_usage",
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
        # Some providers give their event streams another type; ours to edit is what we asked for, whatever its name.
        self.is_events = self.content_type == EVENT_STREAM or (strip_usage and reply.status == 200 and not self.is_json)
        self.content_encoding = b"" if encoding == b"identity" else encoding
        self.mid_event = False
        """A stream event has been sent in part: nothing well-formed can follow it."""

    @property
    def can_end_with_error(self) -> bool:
        """True where a well-formed error event can still follow what the client has: a stream between two events."""
        meter = self.attempt.meter
        return self.is_events and not self.mid_event and not meter.terminated and not meter.cut

    def count(self, piece: bytes) -> None:
        """Note a piece of the body that passes unchanged."""
        self.note_first_byte()
        self.attempt.meter.response_bytes += len(piece)
        if self.capture is not None:
            self.capture.add(piece)

    def note_first_byte(self) -> None:
        """Note when the body began to arrive."""
        if self.attempt.first_byte_at is None:
            self.attempt.first_byte_at = time.monotonic()
