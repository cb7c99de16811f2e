"""Answers of our own API that are given again within a short life: a dashboard, and ten people who look at it, ask the
same question again and again.

    find(asked) --kept--> the answer
        |
        `--no--> since = now() --> PostgreSQL --> keep(asked, since, answer)

An answer belongs to what was asked and to how far the asker sees, so nobody is given what was made for another project.
It is good until its life is over or this process has changed anything that it may be about. What changes is asked for,
not told: `revision` gives figures of which one moves with every commit of this process. An answer whose reading
began before a change is not kept after it, so what is read after a change never comes from before it. Changes by other
processes are seen when the life is over.

Rule of the file: no network, no database, no aiohttp: it is made with the process, the API when it is first asked.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.config.api import Api as Settings
from proxy.metrics import Sample

_OVERHEAD_BYTES: Final = 1024
"""What an answer takes beside its body and its question."""
Revision = tuple[int, ...]


class Asked(NamedTuple):
    """A question: the path in the table of routes, the project that the caller is held to, and sorted parameters."""

    path: str
    scope: str | None
    """`None`: the operator, who sees all projects."""
    parameters: tuple[tuple[str, str], ...]


class Since(NamedTuple):
    """When reading began: what had changed until then, and monotonic seconds."""

    revision: Revision
    at: float


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer of status 200."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


class KeptAnswers:
    """The kept answers of one process. `clock`: monotonic seconds."""

    def __init__(
        self, settings: Settings, revision: Callable[[], Revision], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._revision = revision
        self._clock = clock
        self._changes = 0
        self._kept: OrderedDict[Asked, tuple[KeptAnswer, Since]] = OrderedDict()
        self._uses = {"hit": 0, "miss": 0}
        self._evictions = 0
        self._bytes = 0

    def follow(self, settings: Settings) -> None:
        """Take over a changed configuration."""
        self._settings = settings
        self.drop()

    def now(self) -> Since:
        """Return what `keep` wants to know; to be called before the answer is read."""
        return Since((self._changes, *self._revision()), self._clock())

    def find(self, asked: Asked) -> KeptAnswer | None:
        """Return an answer that is still good."""
        now, (answer, since) = self.now(), self._kept.get(asked, (None, None))
        is_good = since is not None and since.revision == now.revision and now.at - since.at < self._settings.cache_s
        self._uses["hit" if is_good else "miss"] += 1
        if is_good:
            self._kept.move_to_end(asked)
            return answer
        self._remove(asked)
        return None

    def keep(self, asked: Asked, since: Since, answer: KeptAnswer) -> None:
        """Keep an answer, unless something has changed since its reading began or it is larger than all may be."""
        self._remove(asked)
        size = _size(asked, answer)
        if not self._settings.cache_s or size > self._settings.cache_bytes or since.revision != self.now().revision:
            return
        self._kept[asked] = answer, since
        self._bytes += size
        while self._bytes > self._settings.cache_bytes or len(self._kept) > self._settings.cache_entries:
            self._remove(next(iter(self._kept)))
            self._evictions += 1

    def drop(self) -> None:
        """Keep nothing of what was read until now."""
        self._changes += 1
        self._kept.clear()
        self._bytes = 0

    def samples(self) -> Iterable[Sample]:
        """Return what Prometheus is told."""
        text = "Questions to analytics and for quotas: answered with what was kept, or by PostgreSQL."
        for result, count in self._uses.items():
            yield Sample("counter", "sidegate_api_cache_requests", text, {"result": result}, count)
        text = "Kept answers of our own API that made room for others."
        yield Sample("counter", "sidegate_api_cache_evictions", text, {}, self._evictions)
        yield Sample("gauge", "sidegate_api_cache_bytes", "Size of them.", {}, self._bytes)

    def _remove(self, asked: Asked) -> None:
        if (found := self._kept.pop(asked, None)) is not None:
            self._bytes -= _size(asked, found[0])


def _size(asked: Asked, answer: KeptAnswer) -> int:
    return len(answer.body) + sum(len(name) + len(value) for name, value in asked.parameters) + _OVERHEAD_BYTES
