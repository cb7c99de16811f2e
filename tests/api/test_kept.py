"""What is kept of answers: for how long, how much, and what ends it. No clock but the test's own."""

from dataclasses import replace

import pytest

from proxy.api.kept import Asked, KeptAnswer, KeptAnswers
from proxy.config.api import Api

ASKED = Asked("/v1/analytics", "shop", (("userId", "alice"),))
ANSWER = KeptAnswer((("Content-Type", "application/json"),), b"{}")


class World:
    def __init__(self, **settings: float) -> None:
        self.time, self.commits = 100.0, 0
        self.kept = KeptAnswers(Api(**settings), lambda: (self.commits,), lambda: self.time)  # type: ignore[arg-type]

    def shown(self) -> dict[tuple[str, ...], float]:
        return {(sample.name, *sample.labels.values()): sample.value for sample in self.kept.samples()}


def test_answer_when_its_life_is_over_then_it_is_gone():
    world = World(cache_s=2)
    world.kept.keep(ASKED, world.kept.now(), ANSWER)
    world.time += 1.9
    assert world.kept.find(ASKED) is ANSWER
    world.time += 0.1
    assert world.kept.find(ASKED) is None
    shown = world.shown()
    assert (shown["sidegate_api_cache_requests", "hit"], shown["sidegate_api_cache_requests", "miss"]) == (1, 1)
    assert shown["sidegate_api_cache_bytes",] == 0


def test_answer_when_its_own_life_is_shorter_then_it_is_gone_when_that_is_over():
    world = World(cache_s=5)
    world.kept.keep(ASKED, world.kept.now(), replace(ANSWER, life_s=2.0))
    world.time += 1.9
    assert world.kept.find(ASKED) is not None
    world.time += 0.1
    assert world.kept.find(ASKED) is None


@pytest.mark.parametrize(
    "other",
    [
        ASKED._replace(scope=None),
        ASKED._replace(scope="lab"),
        ASKED._replace(path="/v1/analytics/users"),
        ASKED._replace(parameters=()),
    ],
)
def test_answer_when_anything_else_is_asked_then_it_is_not_given(other: Asked):
    world = World()
    world.kept.keep(ASKED, world.kept.now(), ANSWER)
    assert world.kept.find(other) is None and world.kept.find(ASKED) is ANSWER


def test_answer_when_something_was_committed_then_it_is_gone():
    world = World()
    world.kept.keep(ASKED, world.kept.now(), ANSWER)
    world.commits += 1
    assert world.kept.find(ASKED) is None
    assert world.shown()["sidegate_api_cache_bytes",] == 0


@pytest.mark.parametrize("change", ["commit", "drop"])
def test_answer_when_something_changed_while_it_was_read_then_it_is_not_kept(change: str):
    world = World()
    since = world.kept.now()
    if change == "commit":
        world.commits += 1
    else:
        world.kept.drop()
    world.kept.keep(ASKED, since, ANSWER)
    assert world.kept.find(ASKED) is None


def test_life_is_counted_from_when_the_reading_began():
    world = World(cache_s=2)
    since = world.kept.now()
    world.time += 2
    world.kept.keep(ASKED, since, ANSWER)
    assert world.kept.find(ASKED) is None


def test_answers_when_there_are_too_many_then_those_unused_longest_go():
    world = World(cache_entries=2)
    for name in "ab":
        world.kept.keep(ASKED._replace(scope=name), world.kept.now(), ANSWER)
    world.kept.find(ASKED._replace(scope="a"))
    world.kept.keep(ASKED._replace(scope="c"), world.kept.now(), ANSWER)
    assert [name for name in "abc" if world.kept.find(ASKED._replace(scope=name))] == ["a", "c"]
    assert world.shown()["sidegate_api_cache_evictions",] == 1


def test_answers_when_they_are_too_large_then_bytes_stay_within_the_bound():
    world = World(cache_bytes=10_000)
    world.kept.keep(ASKED, world.kept.now(), KeptAnswer((), b"x" * 10_000))
    assert world.kept.find(ASKED) is None
    for number in range(20):
        world.kept.keep(ASKED._replace(scope=str(number)), world.kept.now(), KeptAnswer((), b"x" * 1000))
        world.kept.keep(ASKED._replace(scope=str(number)), world.kept.now(), KeptAnswer((), b"y" * 1000))
        assert world.shown()["sidegate_api_cache_bytes",] <= 10_000
    assert world.shown()["sidegate_api_cache_evictions",] == 16
    world.kept.follow(Api(cache_s=0))
    world.kept.keep(ASKED, world.kept.now(), ANSWER)
    assert world.kept.find(ASKED) is None and world.shown()["sidegate_api_cache_bytes",] == 0
