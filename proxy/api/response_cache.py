"""A small cache of the management API's responses, for dashboards that ask the same questions over and over.

    find(key) --cached--> the response
        |
        `--no--> start = begin() --> PostgreSQL --> keep(key, start, response)

The cache key holds the question and the caller's visibility, so nobody gets a response made for another project. An
entry is valid until it expires (`api.cache_s`, or earlier where the handler knows better: a quota's window ends) or
this process commits a change that it may depend on. Changes are polled, not pushed: `revision` returns counters, one of
which moves with every commit of this process. A response whose query began before a change is not stored after it, so
reads that follow a change always see it. Changes made by other processes become visible when the entry expires.

Rule of the file: no network, no database, no aiohttp. It is built at start; the API itself only when first used.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.config.api import Api as Settings
from proxy.metrics import Sample

_OVERHEAD_BYTES: Final = 1024
"""Memory of an entry beside its body and its question."""
Revision = tuple[int, ...]


class CacheKey(NamedTuple):
    """A question: the path in the table of routes, the project that the caller is limited to, and sorted parameters."""

    path: str
    scope: str | None
    """`None`: the operator, who sees all projects."""
    parameters: tuple[tuple[str, str], ...]


class ReadStart(NamedTuple):
    """When a query began: the revision at that time, and monotonic seconds."""

    revision: Revision
    at: float


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response of status 200."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    life_s: float = math.inf
    """How long it stays valid at most, counted from the start of its query."""


class ResponseCache:
    """The cached responses of one process. `clock`: monotonic seconds."""

    def __init__(
        self, settings: Settings, revision: Callable[[], Revision], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._revision = revision
        self._clock = clock
        self._changes = 0
        self._kept: OrderedDict[CacheKey, tuple[CachedResponse, ReadStart]] = OrderedDict()
        self._uses = {"hit": 0, "miss": 0}
        self._evictions = 0
        self._bytes = 0

    def follow(self, settings: Settings) -> None:
        """Apply a changed configuration."""
        self._settings = settings
        self.drop()

    def begin(self) -> ReadStart:
        """Return what `keep` needs to know; call it before the answer is read."""
        return ReadStart((self._changes, *self._revision()), self._clock())

    def find(self, key: CacheKey) -> CachedResponse | None:
        """Return a response that is still valid, or `None`."""
        answer = self._good(key)
        self._uses["miss" if answer is None else "hit"] += 1
        if answer is None:
            self._remove(key)
        else:
            self._kept.move_to_end(key)
        return answer

    def keep(self, key: CacheKey, start: ReadStart, answer: CachedResponse) -> None:
        """Keep a response, unless something changed since its query began or it exceeds the whole cache."""
        self._remove(key)
        size = _size(key, answer)
        if not self._settings.cache_s or size > self._settings.cache_bytes or start.revision != self.begin().revision:
            return
        self._kept[key] = answer, start
        self._bytes += size
        while self._bytes > self._settings.cache_bytes or len(self._kept) > self._settings.cache_entries:
            self._remove(next(iter(self._kept)))
            self._evictions += 1

    def drop(self) -> None:
        """Forget every response read so far."""
        self._changes += 1
        self._kept.clear()
        self._bytes = 0

    def samples(self) -> Iterable[Sample]:
        """Return the metrics."""
        text = "Analytics and quota requests answered from the cache (hit) or by PostgreSQL (miss)."
        for result, count in self._uses.items():
            yield Sample("counter", "sidegate_api_cache_requests", text, {"result": result}, count)
        text = "Cached responses of the management API evicted to make room."
        yield Sample("counter", "sidegate_api_cache_evictions", text, {}, self._evictions)
        yield Sample("gauge", "sidegate_api_cache_bytes", "Size of the cached responses.", {}, self._bytes)

    def _good(self, key: CacheKey) -> CachedResponse | None:
        if (found := self._kept.get(key)) is None:
            return None
        now, (answer, start) = self.begin(), found
        is_young = now.at - start.at < min(self._settings.cache_s, answer.life_s)
        return answer if is_young and start.revision == now.revision else None

    def _remove(self, key: CacheKey) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self._bytes -= _size(key, found[0])


def _size(key: CacheKey, answer: CachedResponse) -> int:
    return len(answer.body) + sum(len(name) + len(value) for name, value in key.parameters) + _OVERHEAD_BYTES
