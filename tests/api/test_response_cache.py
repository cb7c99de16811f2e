"""What is kept of answers: for how long, how much, and what ends it. No clock but the test's own."""

from dataclasses import replace

import pytest

from proxy.api.response_cache import CachedResponse, CacheKey, ResponseCache
from proxy.config.api import Api

KEY = CacheKey("/v1/analytics", "shop", (("userId", "alice"),))
ANSWER = CachedResponse((("Content-Type", "application/json"),), b"{}")


class World:
    def __init__(self, **settings: float) -> None:
        self.time, self.commits = 100.0, 0
        self.cache = ResponseCache(Api(**settings), lambda: (self.commits,), lambda: self.time)  # type: ignore[arg-type]

    def shown(self) -> dict[tuple[str, ...], float]:
        return {(sample.name, *sample.labels.values()): sample.value for sample in self.cache.samples()}


def test_answer_when_its_life_is_over_then_it_is_gone():
    world = World(cache_s=2)
    world.cache.keep(KEY, world.cache.begin(), ANSWER)
    world.time += 1.9
    assert world.cache.find(KEY) is ANSWER
    world.time += 0.1
    assert world.cache.find(KEY) is None
    shown = world.shown()
    assert (shown["sidegate_api_cache_requests", "hit"], shown["sidegate_api_cache_requests", "miss"]) == (1, 1)
    assert shown["sidegate_api_cache_bytes",] == 0


def test_answer_when_its_own_life_is_shorter_then_it_is_gone_when_that_is_over():
    world = World(cache_s=5)
    world.cache.keep(KEY, world.cache.begin(), replace(ANSWER, life_s=2.0))
    world.time += 1.9
    assert world.cache.find(KEY) is not None
    world.time += 0.1
    assert world.cache.find(KEY) is None


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(scope=None),
        KEY._replace(scope="lab"),
        KEY._replace(path="/v1/analytics/users"),
        KEY._replace(parameters=()),
    ],
)
def test_answer_when_anything_else_is_asked_then_it_is_not_given(other: CacheKey):
    world = World()
    world.cache.keep(KEY, world.cache.begin(), ANSWER)
    assert world.cache.find(other) is None and world.cache.find(KEY) is ANSWER


def test_answer_when_something_was_committed_then_it_is_gone():
    world = World()
    world.cache.keep(KEY, world.cache.begin(), ANSWER)
    world.commits += 1
    assert world.cache.find(KEY) is None
    assert world.shown()["sidegate_api_cache_bytes",] == 0


@pytest.mark.parametrize("change", ["commit", "drop"])
def test_answer_when_something_changed_while_it_was_read_then_it_is_not_kept(change: str):
    world = World()
    start = world.cache.begin()
    if change == "commit":
        world.commits += 1
    else:
        world.cache.drop()
    world.cache.keep(KEY, start, ANSWER)
    assert world.cache.find(KEY) is None


def test_life_is_counted_from_when_the_reading_began():
    world = World(cache_s=2)
    start = world.cache.begin()
    world.time += 2
    world.cache.keep(KEY, start, ANSWER)
    assert world.cache.find(KEY) is None


def test_answers_when_there_are_too_many_then_those_unused_longest_go():
    world = World(cache_entries=2)
    for name in "ab":
        world.cache.keep(KEY._replace(scope=name), world.cache.begin(), ANSWER)
    world.cache.find(KEY._replace(scope="a"))
    world.cache.keep(KEY._replace(scope="c"), world.cache.begin(), ANSWER)
    assert [name for name in "abc" if world.cache.find(KEY._replace(scope=name))] == ["a", "c"]
    assert world.shown()["sidegate_api_cache_evictions",] == 1


def test_answers_when_they_are_too_large_then_bytes_stay_within_the_bound():
    world = World(cache_bytes=10_000)
    world.cache.keep(KEY, world.cache.begin(), CachedResponse((), b"x" * 10_000))
    assert world.cache.find(KEY) is None
    for number in range(20):
        world.cache.keep(KEY._replace(scope=str(number)), world.cache.begin(), CachedResponse((), b"x" * 1000))
        world.cache.keep(KEY._replace(scope=str(number)), world.cache.begin(), CachedResponse((), b"y" * 1000))
        assert world.shown()["sidegate_api_cache_bytes",] <= 10_000
    assert world.shown()["sidegate_api_cache_evictions",] == 16
    world.cache.follow(Api(cache_s=0))
    world.cache.keep(KEY, world.cache.begin(), ANSWER)
    assert world.cache.find(KEY) is None and world.shown()["sidegate_api_cache_bytes",] == 0
