"""Answers in memory: bounded by bytes and by time, least recently used first out. Pure; the time is passed in.

The forms of an answer that were prepared for clients (`replay`) are stored with it, count towards the limit and are
evicted together with it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.exchange import Meter

Form = Literal["whole", "events"]
"""A JSON document, or the events of a stream."""
Shape = Literal["whole", "events", "bare"]
"""What a client gets; `bare`: events without usage."""
_OVERHEAD_BYTES: Final = 512
"""Size of an entry in addition to its body."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer in the form for clients, with what a relay would count of it, so that it is not read again."""

    content_type: bytes
    body: bytes
    meter: Meter


@dataclass(slots=True)
class Kept:
    """An answer as its provider sent it, without an encoding."""

    form: Form
    content_type: bytes
    body: bytes
    has_usage: bool
    """Its events include usage."""
    made_at: float
    """Monotonic seconds."""
    ready: dict[Shape, Ready] = field(default_factory=dict)
    """The prepared forms."""
    size: int = 0
    """Its size in bytes, with the prepared forms."""

    def __post_init__(self) -> None:
        self.size = len(self.body) + _OVERHEAD_BYTES


class Memory:
    """The answers of one process. `limit_bytes`: of all together; `ttl_s`: lifetime of each."""

    def __init__(self, limit_bytes: int, ttl_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._ttl_s = ttl_s
        self._kept: OrderedDict[tuple[bytes, Form], Kept] = OrderedDict()
        self.used_bytes = 0
        self.evictions = 0
        """Answers evicted before they expired."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes, form: Form, now: float) -> Kept | None:
        """Return a stored answer that has not expired."""
        kept = self._kept.get((digest, form))
        if kept is None:
            return None
        if now - kept.made_at >= self._ttl_s:
            self._drop((digest, form))
            return None
        self._kept.move_to_end((digest, form))
        return kept

    def put(self, digest: bytes, kept: Kept) -> None:
        """Store an answer, unless it alone exceeds the limit."""
        key = (digest, kept.form)
        if key in self._kept:
            self._drop(key)
        if kept.size > self._limit_bytes:
            return
        self._make_room(kept.size)
        self._kept[key] = kept
        self.used_bytes += kept.size

    def put_beside(self, digest: bytes, kept: Kept, shape: Shape, ready: Ready) -> None:
        """Store a prepared form of an answer, unless both together exceed the limit.

        Not of one that was dropped since `get` returned it, nor a form that another request has stored meanwhile.
        """
        key = (digest, kept.form)
        if self._kept.get(key) is not kept or shape in kept.ready:
            return
        self._kept.move_to_end(key)  # so that it is not what has to make room
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
