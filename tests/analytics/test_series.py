"""Sums over time by model and layer, against the plain arithmetic of `history`."""

from collections.abc import Callable
from datetime import date

import pytest

from proxy.analytics.figures import Question, Sums
from proxy.analytics.queries import Analytics
from proxy.analytics.series import Split
from tests.analytics.history import Call, Sum, call_sums
from tests.analytics.test_queries import HISTORY, RANGES, SETTINGS, Database, assert_same, history_url, periods

__all__ = ["history_url"]
KEYS: dict[Split, Callable[[Call], str]] = {
    "model": lambda call: call.model,
    "layer": lambda call: call.layer or "none",
}


@pytest.fixture
async def series(history_url: str):
    database = Database(SETTINGS)
    await database.connect(history_url)
    yield Analytics(database)
    await database.close()


@pytest.mark.parametrize("user", [None, "alice"])
@pytest.mark.parametrize("project", [None, "lab"])
@pytest.mark.parametrize("split", KEYS)
async def test_every_point_is_that_of_plain_arithmetic(
    split: Split, project: str | None, user: str | None, series: Analytics
) -> None:
    since, until = RANGES["days"]
    question = Question(project_id=project, user_id=user, since=since, until=until, period="week")
    found = await series.series(question, split, 50)
    week = periods("week")
    chosen = [r for r in HISTORY if since <= r.day <= until and project in (None, r.project) and user in (None, r.user)]
    expected: dict[str, dict[date, Sum]] = {}
    for first in {week(request) for request in chosen}:
        for name, part in call_sums([r for r in chosen if week(r) == first], KEYS[split], lambda _: True).items():
            expected.setdefault(name, {})[first] = part
    assert found.by_name.keys() == expected.keys() and found.other == {}
    for name, points in expected.items():
        assert list(found.by_name[name]) == sorted(points)
        for first, part in points.items():
            assert_same(found.by_name[name][first], part)


async def test_of_many_names_the_cheap_ones_are_told_together(series: Analytics) -> None:
    question = Question(since=RANGES["all"][0], until=RANGES["all"][1], period="month")
    whole, cut = await series.series(question, "model", 50), await series.series(question, "model", 2)
    assert list(cut.by_name) == list(whole.by_name)[:2]
    costs = [sum(points.values(), Sums()).cost for points in whole.by_name.values()]
    assert costs == sorted(costs, reverse=True)
    assert sum(cut.other.values(), Sums()) == sum(
        (sums for name in list(whole.by_name)[2:] for sums in whole.by_name[name].values()), Sums()
    )
