"""Answers in memory: bounded by bytes and by time, those unused longest go first. Pure; the time is passed in.

What was made of an answer for those who asked for it (`replay`) stays beside it, counts with it and goes with it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.exchange import Meter

Form = Literal["whole", "events"]
"""A JSON document, or the events of a stream."""
Shape = Literal["whole", "events", "bare"]
"""What a client gets; `bare`: events without the figures of usage."""
_OVERHEAD_BYTES: Final = 512
"""What an entry takes beside its body."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer in the shape in which it leaves, and what a relay would count of it: nobody need read it again."""

    content_type: bytes
    body: bytes
    meter: Meter


@dataclass(slots=True)
class Kept:
    """An answer as its provider gave it, without an encoding."""

    form: Form
    content_type: bytes
    body: bytes
    has_usage: bool
    """Its events tell the usage."""
    made_at: float
    """Monotonic seconds."""
    ready: dict[Shape, Ready] = field(default_factory=dict)
    """What was made of it."""
    size: int = 0
    """Bytes that it takes, with what was made of it."""

    def __post_init__(self) -> None:
        self.size = len(self.body) + _OVERHEAD_BYTES


class Memory:
    """The answers of one process. `limit_bytes`: of all together; `ttl_s`: how long each is good."""

    def __init__(self, limit_bytes: int, ttl_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._ttl_s = ttl_s
        self._kept: OrderedDict[tuple[bytes, Form], Kept] = OrderedDict()
        self.used_bytes = 0
        self.evictions = 0
        """Answers that made room for others before their time."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes, form: Form, now: float) -> Kept | None:
        """Return a kept answer that is still good."""
        kept = self._kept.get((digest, form))
        if kept is None:
            return None
        if now - kept.made_at >= self._ttl_s:
            self._drop((digest, form))
            return None
        self._kept.move_to_end((digest, form))
        return kept

    def put(self, digest: bytes, kept: Kept) -> None:
        """Keep an answer; one that alone is beyond the bound is not."""
        key = (digest, kept.form)
        if key in self._kept:
            self._drop(key)
        if kept.size > self._limit_bytes:
            return
        self._make_room(kept.size)
        self._kept[key] = kept
        self.used_bytes += kept.size

    def put_beside(self, kept: Kept, shape: Shape, ready: Ready) -> None:
        """Keep what was made of an answer that `get` has just returned, unless both together are beyond the bound."""
        size = _OVERHEAD_BYTES + (0 if ready.body is kept.body else len(ready.body))
        if kept.size + size <= self._limit_bytes:
            self._make_room(size)
            kept.ready[shape] = ready
            kept.size += size
            self.used_bytes += size

    def _make_room(self, size: int) -> None:
        while self.used_bytes + size > self._limit_bytes:
            self._drop(next(iter(self._kept)))
            self.evictions += 1

    def _drop(self, key: tuple[bytes, Form]) -> None:
        self.used_bytes -= self._kept.pop(key).size
