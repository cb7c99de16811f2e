"""The open requests: those with an intent and no final. Consistent with the counters of the segments.

An intent keeps its segment until its final is committed: through `Segment.open_intents` until the final is written,
then through `Segment.pending` if the final is in the same segment, else through `Segment.finals_until`. The bodies stay
in memory, so that an intent can be rewritten; their number is bounded by the limit of concurrent requests.
"""

from proxy.journal.frames import FRAME_OVERHEAD
from proxy.journal.segment import Position, Segment


class OpenIntents:
    """All open intents of one journal."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, tuple[Segment | None, bytes]] = {}
        """Trace id -> (segment that holds the intent, or `None` while only memory does; body)."""

    def begin(self, trace_id: bytes, body: bytes, segment: Segment) -> None:
        """Track an intent that is in `segment` from now on; it may have been elsewhere before."""
        holder, _ = self.by_id.get(trace_id, (None, b""))
        if holder is not None:
            holder.open_intents -= 1
        self.by_id[trace_id] = (segment, body)
        segment.open_intents += 1

    def end(self, trace_id: bytes, segment: Segment, offset: int) -> None:
        """Track a final whose frame ends at `offset` of `segment`."""
        holder, _ = self.by_id.pop(trace_id, (None, b""))
        if holder is not None:
            holder.open_intents -= 1
            if holder is segment:
                segment.own_finals_until = offset
            else:
                holder.finals_until = max(holder.finals_until, Position(segment.number, offset))

    def disk_bytes(self) -> int:
        """Return the size of the frames of all open intents. Cost O(their number)."""
        return sum(FRAME_OVERHEAD + len(body) for _, body in self.by_id.values())

    def held_by(self, segment: Segment) -> list[tuple[bytes, bytes]]:
        """Return trace id and body of the open intents in `segment`."""
        return [(trace_id, body) for trace_id, (holder, body) in self.by_id.items() if holder is segment]

    def detach(self, segment: Segment) -> list[tuple[bytes, bytes]]:
        """Leave the open intents of `segment` in memory only; return them, to be rewritten."""
        intents = self.held_by(segment)
        for trace_id, body in intents:
            self.by_id[trace_id] = (None, body)
        segment.open_intents = 0
        return intents
