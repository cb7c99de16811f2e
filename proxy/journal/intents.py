"""Which requests are open: an intent was written, its final was not. Kept in step with the counters of the segments.

An intent holds its segment until its final is committed: until the final is written by `Segment.open_intents`, from
then on by `Segment.pending` if the final is in the same segment, else by `Segment.finals_until`. The bodies stay in
memory, so that an intent can be written again elsewhere; their number is bounded by the limit of concurrent requests.
"""

from proxy.journal.frames import FRAME_OVERHEAD
from proxy.journal.segment import Position, Segment


class OpenIntents:
    """All open intents of one journal."""

    def __init__(self) -> None:
        self.by_id: dict[bytes, tuple[Segment | None, bytes]] = {}
        """Trace id -> (segment that holds the intent, or `None` while only memory does; body)."""

    def begin(self, trace_id: bytes, body: bytes, segment: Segment) -> None:
        """Follow an intent that stands in `segment` from now on; it may have stood elsewhere before."""
        holder, _ = self.by_id.get(trace_id, (None, b""))
        if holder is not None:
            holder.open_intents -= 1
        self.by_id[trace_id] = (segment, body)
        segment.open_intents += 1

    def end(self, trace_id: bytes, segment: Segment, offset: int) -> None:
        """Follow a final whose frame ends at `offset` of `segment`."""
        holder, _ = self.by_id.pop(trace_id, (None, b""))
        if holder is not None:
            holder.open_intents -= 1
            if holder is segment:
                segment.own_finals_until = offset
            else:
                holder.finals_until = max(holder.finals_until, Position(segment.number, offset))

    def disk_bytes(self) -> int:
        """Return what the frames of all open intents take up. Cost O(their number)."""
        return sum(FRAME_OVERHEAD + len(body) for _, body in self.by_id.values())

    def held_by(self, segment: Segment) -> list[tuple[bytes, bytes]]:
        """Return trace id and body of the open intents that stand in `segment`."""
        return [(trace_id, body) for trace_id, (holder, body) in self.by_id.items() if holder is segment]

    def detach(self, segment: Segment) -> list[tuple[bytes, bytes]]:
        """Let memory alone hold the open intents of `segment`; return them, to be written again."""
        intents = self.held_by(segment)
        for trace_id, body in intents:
            self.by_id[trace_id] = (None, body)
        segment.open_intents = 0
        return intents
