"""The answer cache of one replica, by request key, and its statistics."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from proxy.cache.memory import Form, Kept, Memory, Ready
from proxy.cache.replay import KeptReply, made_ready
from proxy.cache.request_key import RequestKey
from proxy.cache.sharing import Sharing
from proxy.cache.store import Row
from proxy.config.cache import Cache
from proxy.event_loop.off_loop import LARGE_BODY_BYTES, decoded_off_loop
from proxy.exchange import CacheUse
from proxy.metrics import Sample

_FORMS: Final[dict[bool, tuple[Form, ...]]] = {True: ("events", "whole"), False: ("whole",)}
"""Whether a stream is requested -> the forms that it can be made from, best first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cached answer, ready to be relayed."""

    reply: KeptReply
    age_s: float


@dataclass(slots=True)
class Counts:
    """Results of look-ups, for requests of projects with a cache."""

    uses: dict[CacheUse, int] = field(default_factory=lambda: {"hit": 0, "miss": 0, "bypass": 0})
    kept: int = 0
    crowded: int = 0
    """Answers that were not stored for lack of memory to copy them."""


class AnswerCache:
    """The cached answers of one process. `clock`: monotonic seconds."""

    def __init__(
        self, settings: Cache, sharing: Sharing | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sharing = sharing
        """Access to answers from other replicas; `None` if they are not shared."""
        self.entry_bytes = settings.entry_bytes
        self.counts = Counts()
        self._memory = Memory(settings.memory_bytes, settings.ttl_s)
        self._clock = clock

    async def find(self, key: RequestKey) -> Found | None:
        """Return a cached answer in the requested form. Waits only for a look-up of other replicas' answers, and
        for a thread if a large answer is to be read."""
        found = await self._find(key)
        if found is not None or self.sharing is None:
            return found
        for row in await self.sharing.get(key, _FORMS[key.stream]):
            made_at = self._clock() - row.age_s
            self._memory.put(
                key.digest, Kept(row.form, row.content_type.encode("latin-1"), row.body, row.has_usage, made_at)
            )
        return await self._find(key)

    async def _find(self, key: RequestKey) -> Found | None:
        now = self._clock()
        for form in _FORMS[key.stream]:
            kept = self._memory.get(key.digest, form, now)
            if kept is None or (key.wants_usage and not kept.has_usage):
                continue
            if (ready := await self._ready(kept, key)) is not None:
                return Found(KeptReply(ready), now - kept.made_at)
        return None

    async def _ready(self, kept: Kept, key: RequestKey) -> Ready | None:
        """Return an answer in the requested form, made apart from the event loop if it is large."""
        ready = kept.ready.get(key.shape)
        if ready is not None:
            return ready
        make = partial(made_ready, kept, key.shape, key.dialect)
        is_large = len(kept.body) > LARGE_BODY_BYTES
        ready = await decoded_off_loop(make) if is_large else make()
        if ready is not None:
            self._memory.put_beside(key.digest, kept, key.shape, ready)
        return ready

    def keep(self, key: RequestKey, content_type: bytes, body: bytes, *, has_usage: bool, at_rest: bool) -> None:
        """Store a provider's answer unchanged. `at_rest`: also in PostgreSQL, if answers are shared."""
        form: Form = "events" if key.stream else "whole"
        self._memory.put(key.digest, Kept(form, content_type, body, has_usage, self._clock()))
        if self.sharing is not None and at_rest:
            self.sharing.offer(key, Row(form, content_type.decode("latin-1"), body, has_usage))
        self.counts.kept += 1

    def samples(self) -> Iterable[Sample]:
        """Return the metrics."""
        text = "Requests of projects with a cache."
        for use, count in self.counts.uses.items():
            yield Sample("counter", "sidegate_cache_requests", text, {"result": use}, count)
        yield Sample("counter", "sidegate_cache_kept", "Answers that were kept.", {}, self.counts.kept)
        text = "Answers that were not kept because the memory for requests had no room for their copy."
        yield Sample("counter", "sidegate_cache_crowded", text, {}, self.counts.crowded)
        text = "Answers that made room for others before their time."
        yield Sample("counter", "sidegate_cache_evictions", text, {}, self._memory.evictions)
        yield Sample("gauge", "sidegate_cache_bytes", "Size of the kept answers.", {}, self._memory.used_bytes)
        if self.sharing is not None:
            text = "Answers that could not be shared or looked up."
            yield Sample("counter", "sidegate_cache_sharing_failures", text, {}, self.sharing.failures)
        yield Sample("gauge", "sidegate_cache_entries", "Answers in memory.", {}, len(self._memory))
