"""What a client tells about its connections, for the metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientStats:
    """A moment's counts. `open` includes connections being made and idle ones."""

    open: int
    idle: int
    waiting: int
    """Requests in the queue for a connection."""
