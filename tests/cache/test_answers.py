"""What a replica keeps, asked by request keys."""

from dataclasses import replace

from proxy.cache.answers import AnswerCache
from proxy.cache.request_key import RequestKey
from proxy.config.cache import Cache

KEY = RequestKey(b"k" * 32, "shop", stream=False, wants_usage=False)
STREAM = replace(KEY, stream=True)
WITH_USAGE = replace(STREAM, wants_usage=True)
CHAT = b'{"object":"chat.completion","choices":[],"usage":null}'


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


async def test_find_when_kept_then_its_age_and_its_own_form_first():
    clock = Clock()
    cache = AnswerCache(Cache(), clock)
    assert cache.find(KEY) is None
    cache.keep(KEY, b"application/json", CHAT, has_usage=False)
    clock.now += 7
    found, made = cache.find(KEY), cache.find(STREAM)
    assert found is not None and made is not None
    assert (found.age_s, await found.reply.read(), await made.reply.read()) == (7.0, CHAT, b"data: [DONE]\n\n")
    cache.keep(STREAM, b"text/event-stream", b"data: 1\n\n", has_usage=True)
    own = cache.find(STREAM)
    assert own is not None and await own.reply.read() == b"data: 1\n\n"
    assert cache.find(replace(KEY, digest=b"o" * 32)) is None


def test_find_when_usage_is_wanted_and_not_known_then_nothing():
    cache = AnswerCache(Cache())
    cache.keep(STREAM, b"text/event-stream", b"data: 1\n\n", has_usage=False)
    assert cache.find(STREAM) is not None
    assert cache.find(WITH_USAGE) is None
    cache.keep(KEY, b"application/json", CHAT, has_usage=True)
    assert cache.find(WITH_USAGE) is not None


def test_samples_when_asked_for_then_what_happened():
    cache = AnswerCache(Cache(memory_bytes=600))
    cache.keep(KEY, b"", b"x" * 80, has_usage=False)
    cache.keep(replace(KEY, digest=b"o" * 32), b"", b"x" * 80, has_usage=False)
    cache.counts.uses["hit"] += 2
    shown = {(sample.name, *sample.labels.values()): sample.value for sample in cache.samples()}
    assert shown["sidegate_cache_requests", "hit"] == 2
    assert (shown["sidegate_cache_kept",], shown["sidegate_cache_evictions",]) == (2, 1)
    assert (shown["sidegate_cache_entries",], shown["sidegate_cache_bytes",]) == (1, 592)
