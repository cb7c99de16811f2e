"""What every relay works on: one provider's answer on its way to the client.

Rule of the package: a relay moves bytes and counts; it decides nothing about policy, money or errors. Before the last
byte leaves it calls `seal`, which settles and journals: what a client has received in full is always on record.
"""

import time
from collections.abc import Callable

from proxy.exchange import Attempt, Capture, Dialect, Headers, UpstreamReply, first_values

EVENT_STREAM = b"text/event-stream"
NO_BODY_STATUSES = frozenset({204, 304})


class Answer:
    """An answer whose head has arrived and whose body is still with the provider.

    `headers`: what the client gets; framing is added by the downstream side. `fields`: the provider's own, first values
    by lower-case name.
    """

    __slots__ = (
        "attempt", "capture", "content_encoding", "content_type", "dialect", "has_body", "headers", "is_events",
        "is_json", "length", "mid_event", "reply", "seal", "status", "strip_usage",
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
        return self.is_events and not self.mid_event and not self.attempt.meter.terminated

    def count(self, piece: bytes) -> None:
        """Note a piece of the body that passes unchanged."""
        attempt = self.attempt
        if attempt.first_byte_at is None:
            attempt.first_byte_at = time.monotonic()
        attempt.meter.response_bytes += len(piece)
        if self.capture is not None:
            self.capture.add(piece)
