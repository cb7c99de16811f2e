"""Who is refused, and what is given up, when the process is short of time or memory."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.config.shedding import Shedding as Settings
from proxy.errors import Overloaded
from proxy.metrics import Metrics
from proxy.process.shedding import Shedding

GIB = 1 << 30


def made(*, has_critical: bool = False, limit_bytes: int | None = GIB, **settings) -> Shedding:
    return Shedding(
        Settings(**settings), Metrics(1), limit_bytes, concurrent_requests=10, has_critical=lambda: has_critical
    )


def late(shedding: Shedding, lag_s: float, times: int = 3) -> None:
    for _ in range(times):
        shedding.note(lag_s, 0)


def shown(shedding: Shedding, reason: str) -> float:
    return next(one.value for one in shedding.samples() if one.labels == {"reason": reason})


def counted(shedding: Shedding, name: str) -> float:
    return next(one.value for one in shedding.samples() if one.name == f"sidegate_{name}")


def begins(shedding: Shedding, project: str = "a", *, is_critical: bool = False) -> bool:
    """Let one request begin, as ingress and pipeline do."""
    try:
        shedding.check()
        shedding.enter(project, is_critical=is_critical)
    except Overloaded:
        return False
    return True


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
    assert shown(shedding, reason) == 3
    shedding.note(0.0, 0)
    shedding.check()
    assert shown(shedding, reason) == 0


@pytest.mark.parametrize(
    ("lag_s", "memory", "level", "captures", "normal", "critical"),
    [
        (0.0, 0.79, 0, True, True, True),
        (0.0, 0.80, 1, False, True, True),
        (0.1, 0.0, 1, False, True, True),
        (0.0, 0.90, 2, False, False, True),
        (0.25, 0.0, 2, False, False, True),
        (0.0, 0.95, 3, False, False, True),
        (0.5, 0.0, 3, False, False, True),
        (0.0, 0.97, 4, False, False, False),
        (1.0, 0.0, 4, False, False, False),
        (0.0, 0.98, 5, False, False, False),
        (99.0, 0.0, 4, False, False, False),
    ],
)
def test_degrees_when_time_or_memory_get_short_then_what_matters_least_goes_first(
    lag_s: float, memory: float, level: int, captures: bool, normal: bool, critical: bool
) -> None:
    shedding = made(has_critical=True)
    for project in ["flood", "flood", "quiet"]:
        shedding.enter(project, is_critical=False)
    for _ in range(3):
        shedding.note(lag_s, int(memory * GIB) + 1)
    assert max(shown(shedding, "lag"), shown(shedding, "memory")) == level
    assert shedding.may_capture() is captures
    assert counted(shedding, "shedding_uncaptured") == (not captures)
    assert begins(shedding, "flood") is normal
    assert begins(shedding, "flood", is_critical=True) is critical


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
        shedding.enter(project, is_critical=False)
    late(shedding, 0.3)
    assert not begins(shedding, "flood")
    for project in ("quiet", "new", "quiet"):
        assert begins(shedding, project)
    for project in ["flood"] * 9 + ["quiet"] * 3 + ["new"]:
        shedding.leave(project, is_critical=False)
    for _ in range(20):  # alone, a project has all of it
        assert begins(shedding, "flood")


def test_room_when_some_project_is_critical_then_its_part_of_it_is_kept() -> None:
    shedding = made(has_critical=True)
    assert [begins(shedding) for _ in range(9)] == [True] * 8 + [False]
    for _ in range(3):  # ingress bounds them all together
        assert begins(shedding, is_critical=True)
    assert counted(shedding, "critical_requests_in_flight") == 3
    assert not begins(shedding), "what critical requests take is not taken from the normal ones, nor given to them"
    shedding.leave("a", is_critical=True)
    assert not begins(shedding)
    shedding.leave("a", is_critical=False)
    assert begins(shedding)
    with pytest.raises(Overloaded, match="limit is 8") as raised:
        shedding.enter("b", is_critical=False)
    assert (raised.value.code, raised.value.retry_after_s) == ("too_many_requests_in_flight", 1.0)
    shedding.follow(Settings(critical_share=0), 10)
    assert begins(shedding, "b")


def test_room_when_no_project_is_critical_then_all_of_it_is_for_everybody() -> None:
    shedding = made()
    assert all(begins(shedding) for _ in range(10))


def test_limits_when_configured_anew_then_they_count_and_without_any_memory_is_no_reason() -> None:
    shedding = made()
    shedding.follow(Settings(memory_limit_bytes=1000, fair_memory=0.5), 10)
    shedding.note(0.0, 600)
    assert shown(shedding, "memory") == 2
    unbounded = made(limit_bytes=None)
    unbounded.note(0.0, 1 << 50)
    assert begins(unbounded)


@pytest.mark.parametrize(
    ("limit_bytes", "buffered_bytes", "expected"), [(GIB, GIB, GIB // 8), (GIB, 1000, 1000), (None, GIB, GIB)]
)
def test_bodies_when_memory_is_bounded_then_they_get_a_part_of_it(limit_bytes, buffered_bytes, expected) -> None:
    assert made(limit_bytes=limit_bytes).most_body_bytes(buffered_bytes) == expected


@asynccontextmanager
async def watching(shedding: Shedding, end_largest):
    task = asyncio.create_task(shedding.watch(end_largest))
    try:
        async with asyncio.timeout(5):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("helps", [True, False])
async def test_watch_when_memory_is_at_its_end_then_what_holds_most_is_ended_and_counted(helps: bool) -> None:
    shedding = made(limit_bytes=1)
    ended = asyncio.Queue()

    def end_largest(error: Overloaded) -> bool:
        ended.put_nowait(error)
        return helps

    async with watching(shedding, end_largest):
        error = await ended.get()
    assert (error.code, error.http_status) == ("overloaded_memory", 503)
    assert counted(shedding, "shedding_ended") == helps
    with pytest.raises(Overloaded, match="memory"):
        shedding.check()


async def test_watch_when_memory_suffices_then_nothing_is_ended() -> None:
    shedding = made(limit_bytes=1 << 50)
    async with watching(shedding, pytest.fail):
        while not counted(shedding, "memory_resident_bytes"):
            await asyncio.sleep(0.01)
