"""The answer cache in one exchange: the first step of phase 6, before a breaker or a provider is consulted.

    find      look up a cached answer. It is not scanned again: the policy version is part of the key, so the same rules
              and actions found nothing in it when it was stored
    record    otherwise, copy the provider's answer as it passes
    keep      store the copy after the last byte was sent, if the answer qualifies

Stored are complete answers of the first candidate's first attempt that passed the checks, and the second opinion where
the project has them: status 200, terminator seen, finished regularly (not by length or a content filter), not cut by
quota, policy or client, and without findings of the policy. So no secret that the policy detects is ever stored.
Identical requests at the same time all go to the provider: the later answer is stored, and none waits for another.

A hit makes no attempt, so it reserves and charges nothing; its trace says so.
"""

from functools import partial
from typing import Final

from proxy.cache.answers import AnswerCache, Found
from proxy.cache.recording import RecordedReply, Room
from proxy.cache.replay import KeptReply
from proxy.cache.request_key import RequestKey, directives, key_of
from proxy.config.project import FeatureSettings
from proxy.event_loop.off_loop import decoded_off_loop
from proxy.exchange import Attempt, CacheUse, Exchange, Header, UpstreamReply
from proxy.nouns.findings import Verdict

_GOOD_ENDS: Final = frozenset({"stop", "tool_calls", "function_call", "completed"})


class CacheLookup:
    """The cache in one planned exchange."""

    __slots__ = (
        "_cache", "_found", "_is_large", "_keeps", "_key", "_make_key", "_reads", "_recorded", "_room", "_x", "use",
    )  # fmt: skip

    def __init__(self, cache: AnswerCache, x: Exchange, features: FeatureSettings, room: Room) -> None:
        assert x.plan is not None and x.request is not None and x.principal is not None and x.verdict is not None
        self._reads, self._keeps = directives(x.inbound.headers)
        """Whether a cached answer will do, and whether a new one may be stored."""
        self._cache = cache
        self._room = room
        self._x = x
        self._recorded: RecordedReply | None = None
        self._found: Found | None = None
        self._key: RequestKey | None = None
        terms = (x.verdict.version, features.enable_auto_escalate, features.enable_cross_check)
        self._make_key = partial(key_of, x.inbound, x.request, x.plan.candidates[0], x.principal.project_id, terms)
        self._is_large = x.request.document is None and x.request.body is not None
        """Its decoded form was dropped."""
        self.use: CacheUse = "bypass"
        """The result, as it is reported to the client."""

    async def find(self) -> KeptReply | None:
        """Return a cached answer in place of a provider's. Call once. A large request is read again, in a thread."""
        if self._reads or self._keeps:
            self._key = await decoded_off_loop(self._make_key) if self._is_large else self._make_key()
        if self._reads and self._key is not None:
            self._found = await self._cache.find(self._key)
            self.use = "miss" if self._found is None else "hit"
        self._cache.counts.uses[self.use] += 1
        return None if self._found is None else self._found.reply

    @property
    def headers(self) -> tuple[Header, ...]:
        """Return the response headers that report the use of the cache."""
        told = (b"x-sidegate-cache", self.use.encode())
        return (told,) if self._found is None else (told, (b"age", b"%d" % self._found.age_s))

    def record(self, reply: UpstreamReply) -> UpstreamReply:
        """Return the provider's answer, wrapped so that it is copied as it passes if it may be stored."""
        if self._key is None or not self._keeps or reply.status != 200:
            return reply
        self._recorded = RecordedReply(reply, self._cache.entry_bytes, self._room)
        return self._recorded

    def keep(self) -> None:
        """Store the answer that has been relayed, if it qualifies."""
        x, recorded, key = self._x, self._recorded, self._key
        if recorded is None or key is None or x.error is not None or not _is_first_choice(x):
            return
        self._cache.counts.crowded += recorded.is_crowded
        meter = x.attempts[0].meter
        content_type = recorded.fields.get(b"content-type", b"")
        has_form = content_type.lower().startswith(b"text/event-stream" if key.stream else b"application/json")
        if not has_form or not _is_good(x.attempts[0], x.inbound.operation.dialect) or not _is_clean(x.verdict):
            return
        if (body := recorded.body()) is not None:
            is_scanned = x.verdict is not None and "output" in x.verdict.scanned_characters
            self._cache.keep(key, content_type, body, has_usage=meter.usage is not None, at_rest=is_scanned)


def _is_first_choice(x: Exchange) -> bool:
    """Tell whether the first candidate answered at the first attempt, and no check spoke against the answer."""
    judged, first = x.judgement, x.attempts[0]
    if x.plan is None or x.answering is not first or first.candidate is not x.plan.candidates[0]:
        return False
    if judged is None:
        return len(x.attempts) == 1
    is_agreed = judged.cross_check == "agreed" or (judged.cross_check is None and len(x.attempts) == 1)
    return is_agreed and judged.check in (None, "passed")


def _is_good(attempt: Attempt, dialect: str) -> bool:
    """Tell whether an answer is complete and finished regularly."""
    meter = attempt.meter
    if not meter.terminated or meter.cut or meter.withheld or meter.stream_error is not None:
        return False
    ends = set(meter.finish_reasons)
    return ends <= _GOOD_ENDS and (bool(ends) or dialect == "embeddings")


def _is_clean(verdict: Verdict | None) -> bool:
    """Tell whether the policy could read the whole answer and found nothing."""
    if verdict is None or verdict.faults:
        return False
    return not any(direction == "output" for direction, *_ in (*verdict.counts, *verdict.missed))
