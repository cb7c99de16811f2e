"""Answers in memory: bounded by bytes and by time, those unused longest go first. Pure; the time is passed in."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

Form = Literal["whole", "events"]
"""A JSON document, or the events of a stream."""
_OVERHEAD_BYTES: Final = 512
"""What an entry takes beside its body."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as its provider gave it, without an encoding."""

    form: Form
    content_type: bytes
    body: bytes
    has_usage: bool
    """Its events tell the usage."""
    made_at: float
    """Monotonic seconds."""


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
        size = len(kept.body) + _OVERHEAD_BYTES
        if size > self._limit_bytes:
            return
        while self.used_bytes + size > self._limit_bytes:
            self._drop(next(iter(self._kept)))
            self.evictions += 1
        self._kept[key] = kept
        self.used_bytes += size

    def _drop(self, key: tuple[bytes, Form]) -> None:
        self.used_bytes -= len(self._kept.pop(key).body) + _OVERHEAD_BYTES
