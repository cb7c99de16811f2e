import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.routing import Breaker as Settings
from proxy.routing.breaker import Breaker

SETTINGS = Settings()


def breaker(**settings) -> Breaker:
    return Breaker(Settings(**settings), lambda: 0.5)


def opened(at: float = 0.0) -> Breaker:
    made = breaker()
    for _ in range(5):
        made.fail(at)
    return made


# What happens at which second, then the state and whether an attempt may begin at the last one.
STORIES = {
    "new": ([], 0, "closed", True),
    "four in a row": ([("fail", 0)] * 4, 0, "closed", True),
    "five in a row": ([("fail", 0)] * 5, 0, "open", False),
    "a success between": ([("fail", 0)] * 4 + [("succeed", 0)] + [("fail", 0)] * 4, 0, "closed", True),
    "halves count half": ([("half", 0)] * 9, 0, "closed", True),
    "ten halves": ([("half", 0)] * 10, 0, "open", False),
    "share of twenty": ([("fail", 0), ("succeed", 0)] * 9 + [("succeed", 0), ("fail", 0)], 0, "open", False),
    "share of nineteen": ([("fail", 0), ("succeed", 0)] * 9 + [("fail", 0)], 0, "closed", True),
    "share over time": ([("fail", 0), ("succeed", 0)] * 9 + [("succeed", 11), ("fail", 11)], 11, "closed", True),
    "pause over": ([("fail", 0)] * 5, 5, "half_open", True),
    "probe runs": ([("fail", 0)] * 5 + [("begin", 5)], 5, "half_open", False),
    "probe succeeded": ([("fail", 0)] * 5 + [("begin", 5), ("probe_succeeds", 6)], 6, "closed", True),
    "probe failed": ([("fail", 0)] * 5 + [("begin", 5), ("probe_fails", 6)], 15.9, "open", False),
    "second pause is longer": ([("fail", 0)] * 5 + [("begin", 5), ("probe_fails", 6)], 16, "half_open", True),
    "probe abandoned": ([("fail", 0)] * 5 + [("begin", 5), ("abandon", 6)], 6, "half_open", True),
    "late success does not close": ([("fail", 0)] * 5 + [("succeed", 1)], 1, "open", False),
    "late failure does not prolong": ([("fail", 0)] * 5 + [("fail", 4)], 5, "half_open", True),
    "late failure leaves the probe alone": ([("fail", 0)] * 5 + [("begin", 5), ("fail", 6)], 6, "half_open", False),
    "late success leaves the probe alone": ([("fail", 0)] * 5 + [("begin", 5), ("succeed", 6)], 6, "half_open", False),
    "closed forgets": (
        [("fail", 0)] * 5 + [("begin", 5), ("probe_succeeds", 6)] + [("fail", 7)] * 4,
        7,
        "closed",
        True,
    ),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_breaker_after_a_story_is_in_the_right_state(story):
    events, at, state, eligible = story
    made = breaker()
    for event, now in events:
        match event:
            case "half":
                made.fail(now, 0.5)
            case "abandon":
                made.abandon()
            case "probe_succeeds":
                made.succeed(now, is_probe=True)
            case "probe_fails":
                made.fail(now, is_probe=True)
            case _:
                getattr(made, event)(now)
    assert (made.state(at), made.is_eligible(at)) == (state, eligible)


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_pause_when_it_begins_then_it_varies_by_a_fifth(draw, pause):
    made = Breaker(SETTINGS, lambda: draw)
    for _ in range(5):
        made.fail(0)
    assert made.eligible_at == pytest.approx(pause)


def test_pause_when_every_probe_fails_then_it_grows_to_its_limit():
    made, now, pauses = opened(), 0.0, []
    for _ in range(6):
        now = made.eligible_at
        assert made.begin(now)
        made.fail(now, is_probe=True)
        pauses.append(made.eligible_at - now)
    assert pauses == pytest.approx([10, 20, 40, 60, 60, 60])


EVENTS = ["begin", "probe_succeeds", "probe_fails", "succeed", "fail", "abandon"]


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 5)), max_size=60))
def test_breaker_after_anything_never_lets_two_probes_run(events):
    """`succeed` and `fail` are those of attempts that began before it opened: they end no probe."""
    made, now, probes = breaker(failures=2), 0.0, 0
    for event, wait in events:
        now += wait
        match event:
            case "begin" if made.is_eligible(now):
                probes += made.begin(now)
            case "probe_succeeds" if probes:
                made.succeed(now, is_probe=True)
                probes = 0
            case "probe_fails" if probes:
                made.fail(now, is_probe=True)
                probes = 0
            case "succeed":
                made.succeed(now)
            case "fail":
                made.fail(now)
            case "abandon" if probes:
                made.abandon()
                probes = 0
        assert probes <= 1
