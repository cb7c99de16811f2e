"""What a client reports about its connections, for the metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Current counts. `open` includes connections being opened and idle ones."""

    open: int
    idle: int
    waiting: int
    """Requests in the queue for a connection."""
