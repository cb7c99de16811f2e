"""What a replica keeps, asked by request keys."""

import asyncio
import threading
from dataclasses import replace

from proxy.cache import answers
from proxy.cache.answers import AnswerCache
from proxy.cache.replay import made_ready
from proxy.cache.request_key import RequestKey
from proxy.cache.store import Row
from proxy.config.cache import Cache
from proxy.event_loop.fair_threads import MAIN

KEY = RequestKey(b"k" * 32, "shop", stream=False, wants_usage=False, has_bare=True, dialect="chat")
STREAM = replace(KEY, stream=True)
WITH_USAGE = replace(STREAM, wants_usage=True)
CHAT = b'{"object":"chat.completion","choices":[],"usage":null}'


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


async def test_find_when_kept_then_its_age_and_its_own_form_first():
    clock = Clock()
    cache = AnswerCache(Cache(), clock=clock)
    assert await cache.find(KEY) is None
    cache.keep(KEY, b"application/json", CHAT, has_usage=False, at_rest=True)
    clock.now += 7
    found, made = await cache.find(KEY), await cache.find(STREAM)
    assert found is not None and made is not None
    assert (found.age_s, await found.reply.read(), await made.reply.read()) == (7.0, CHAT, b"data: [DONE]\n\n")
    cache.keep(STREAM, b"text/event-stream", b"data: 1\n\n", has_usage=True, at_rest=True)
    own = await cache.find(STREAM)
    assert own is not None and await own.reply.read() == b"data: 1\n\n"
    assert await cache.find(replace(KEY, digest=b"o" * 32)) is None


async def test_find_when_usage_is_wanted_and_not_known_then_nothing():
    cache = AnswerCache(Cache())
    cache.keep(STREAM, b"text/event-stream", b"data: 1\n\n", has_usage=False, at_rest=True)
    assert await cache.find(STREAM) is not None
    assert await cache.find(WITH_USAGE) is None
    cache.keep(KEY, b"application/json", CHAT, has_usage=True, at_rest=True)
    assert await cache.find(WITH_USAGE) is not None


def test_samples_when_asked_for_then_what_happened():
    cache = AnswerCache(Cache(memory_bytes=600))
    cache.keep(KEY, b"", b"x" * 80, has_usage=False, at_rest=True)
    cache.keep(replace(KEY, digest=b"o" * 32), b"", b"x" * 80, has_usage=False, at_rest=True)
    cache.counts.uses["hit"] += 2
    shown = {(sample.name, *sample.labels.values()): sample.value for sample in cache.samples()}
    assert shown["sidegate_cache_requests", "hit"] == 2
    assert ("sidegate_cache_sharing_failures",) not in shown
    assert (shown["sidegate_cache_kept",], shown["sidegate_cache_evictions",]) == (2, 1)
    assert (shown["sidegate_cache_entries",], shown["sidegate_cache_bytes",]) == (1, 592)


async def test_find_when_the_answer_is_large_then_it_is_read_in_a_thread_once(monkeypatch):
    apart: list[bool] = []

    def noted(*given):
        apart.append(threading.get_ident() != MAIN)
        return made_ready(*given)

    monkeypatch.setattr(answers, "made_ready", noted)
    cache = AnswerCache(Cache())
    body = b'{"object":"chat.completion","choices":[],"usage":null,"x":"%b"}' % (b"x" * 100_000)
    cache.keep(KEY, b"application/json", body, has_usage=False, at_rest=True)
    first, second = await asyncio.gather(cache.find(KEY), cache.find(KEY))
    again = await cache.find(KEY)
    for found in (first, second, again):
        assert found is not None and await found.reply.read() == body
    assert apart == [True, True]
    cache.keep(KEY, b"application/json", CHAT, has_usage=False, at_rest=True)
    assert await cache.find(KEY) is not None and apart == [True, True, False]


async def test_find_when_asked_again_then_nothing_is_read_anew_and_all_of_it_is_counted():
    cache = AnswerCache(Cache(memory_bytes=2000))
    body = b'data: {"choices":[],"usage":null}\n\ndata: [DONE]\n\n'
    cache.keep(STREAM, b"text/event-stream", body, has_usage=True, at_rest=True)
    first, again = await cache.find(STREAM), await cache.find(STREAM)
    assert first is not None and again is not None and first.reply.meter is again.reply.meter
    bare = await again.reply.read()
    shown = {sample.name: sample.value for sample in cache.samples()}
    assert shown["sidegate_cache_bytes"] == 2 * 512 + len(body) + len(bare)
    told = await cache.find(WITH_USAGE)
    assert told is not None and await told.reply.read() == body
    cache.keep(STREAM, b"text/event-stream", b"data: new\n\n", has_usage=True, at_rest=True)
    anew = await cache.find(STREAM)
    assert anew is not None and await anew.reply.read() == b"data: new\n\n"


class Table:
    """Stands for the way to the table."""

    failures = 3

    def __init__(self):
        self.rows, self.asked = [], []

    async def get(self, key, forms):
        self.asked.append(forms)
        return self.rows

    def offer(self, key, row):
        self.rows.append(row)


async def test_find_when_another_replica_has_kept_it_then_it_is_kept_here_too_with_its_age():
    clock, table = Clock(), Table()
    cache = AnswerCache(Cache(ttl_s=100), table, clock)
    table.rows = [Row("whole", "application/json", CHAT, True, 60.0)]
    found = await cache.find(STREAM)
    assert found is not None and found.age_s == 60.0
    assert table.asked == [("events", "whole")]
    assert await cache.find(KEY) is not None and len(table.asked) == 1
    clock.now += 41
    table.rows = []
    assert await cache.find(KEY) is None


def test_keep_when_shared_then_others_are_offered_only_what_may_be_at_rest():
    table = Table()
    cache = AnswerCache(Cache(), table)
    cache.keep(KEY, b"application/json", CHAT, has_usage=True, at_rest=False)
    assert table.rows == []
    cache.keep(KEY, b"application/json", CHAT, has_usage=True, at_rest=True)
    assert table.rows == [Row("whole", "application/json", CHAT, True)]
    shown = {sample.name: sample.value for sample in cache.samples()}
    assert shown["sidegate_cache_sharing_failures"] == 3
