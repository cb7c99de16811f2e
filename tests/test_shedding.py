"""Who is refused when the process is short of time or memory."""

import asyncio

import pytest

from proxy.config.shedding import Shedding as Settings
from proxy.errors import Overloaded
from proxy.metrics import Metrics
from proxy.shedding import Shedding

GIB = 1 << 30


def made(**settings) -> Shedding:
    return Shedding(Settings(**settings), Metrics(1), GIB)


def late(shedding: Shedding, lag_s: float, times: int = 3) -> None:
    for _ in range(times):
        shedding.note(lag_s, 0)


def shown(shedding: Shedding, reason: str) -> float:
    return next(one.value for one in shedding.samples() if one.labels == {"reason": reason})


@pytest.mark.parametrize("reason", ["lag", "memory"])
def test_everything_when_far_above_the_limit_then_nothing_begins_until_it_is_over(reason: str) -> None:
    shedding = made()
    if reason == "lag":
        late(shedding, 0.5)
    else:
        shedding.note(0.0, int(0.96 * GIB))
    with pytest.raises(Overloaded) as raised:
        shedding.check()
    assert (raised.value.code, raised.value.retry_after_s) == (f"overloaded_{reason}", 1.0)
    assert shown(shedding, reason) == 2
    shedding.note(0.0, 0)
    shedding.check()
    assert shown(shedding, reason) == 0


def test_lag_when_it_is_one_long_step_then_nobody_is_refused() -> None:
    shedding = made()
    late(shedding, 9.0, times=2)
    shedding.check()
    shedding.note(0.0, 0)
    late(shedding, 9.0, times=2)
    shedding.check()


def test_projects_when_the_process_is_late_then_only_those_beyond_their_share_are_refused() -> None:
    shedding = made()
    for project in ["flood"] * 9 + ["quiet"]:
        shedding.enter(project)
    late(shedding, 0.3)
    shedding.check()
    with pytest.raises(Overloaded, match="share"):
        shedding.enter("flood")
    for project in ("quiet", "new", "quiet"):
        shedding.enter(project)
    for project in ["flood"] * 9 + ["quiet"] * 3 + ["new"]:
        shedding.leave(project)
    for _ in range(20):  # alone, a project has all of it
        shedding.enter("flood")


def test_limits_when_configured_anew_then_they_count_and_without_any_memory_is_no_reason() -> None:
    shedding = made()
    shedding.follow(Settings(memory_limit_bytes=1000, fair_memory=0.5))
    shedding.note(0.0, 600)
    assert shown(shedding, "memory") == 1
    unbounded = Shedding(Settings(), Metrics(1), None)
    unbounded.note(0.0, 1 << 50)
    unbounded.check()


async def test_watch_when_the_loop_is_held_up_then_it_is_seen() -> None:
    metrics = Metrics(1)
    shedding = Shedding(Settings(memory_limit_bytes=1), metrics, None)
    watching = asyncio.create_task(shedding.watch())
    try:
        async with asyncio.timeout(5):
            while not shown(shedding, "memory"):
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
    with pytest.raises(Overloaded, match="memory"):
        shedding.check()
