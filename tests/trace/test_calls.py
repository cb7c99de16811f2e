from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamTimeout
from proxy.exchange import Attempt, Candidate, Charge, ToolCall, Usage, UsageSource
from proxy.trace.calls import busy_seconds, cost_of, llm_call, tool_calls, totals
from tests.trace.exchanges import STARTED, finished


def _attempt(index: int, started: float, ended: float | None) -> Attempt:
    return Attempt(index, Candidate("default", None), started, ended=ended)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6))
def test_busy_seconds_of_any_intervals_is_the_size_of_their_union(spans: list[tuple[int, int]]) -> None:
    attempts = [_attempt(i, start, start + length) for i, (start, length) in enumerate(spans)]
    union = {tick for start, length in spans for tick in range(start, start + length)}
    assert busy_seconds(attempts, 200.0) == len(union)


def test_busy_seconds_of_an_open_attempt_runs_to_the_end() -> None:
    assert busy_seconds([_attempt(0, 1.0, None)], 3.5) == 2.5


@pytest.mark.parametrize(
    ("sources", "whole"),
    [
        ((), "none"),
        (("none",), "none"),
        (("none", "provider"), "provider"),
        (("provider", "none"), "provider"),
        (("provider", "estimated"), "estimated"),
        (("estimated", "provider"), "estimated"),
    ],
)
def test_totals_with_one_estimate_are_an_estimate(sources: tuple[UsageSource, ...], whole: str) -> None:
    document = totals(tuple(Charge(Usage(1, 2), source, 3, True) for source in sources))
    assert document["usage_source"] == whole
    assert document["input_tokens"] == len(sources)
    assert document["output_tokens"] == 2 * len(sources)


@given(st.lists(st.integers(0, 10**15), max_size=5))
def test_total_cost_of_any_charges_is_exact(nanos: list[int]) -> None:
    document = totals(tuple(Charge(Usage(), "provider", cost, True) for cost in nanos))
    assert Fraction(document["total_cost"]) == Fraction(sum(nanos), 10**9)


def test_cost_of_media_lists_only_figures_that_are_there() -> None:
    usage = Usage(audio_input_tokens=3, image_output_tokens=4, audio_seconds=1.5, images=2)
    entry = cost_of(Charge(usage, "provider", 1, False))
    assert entry["priced"] is False
    extra = {"audioInputTokens": 3, "imageOutputTokens": 4, "audioSeconds": 1.5, "images": 2}
    assert {key: value for key, value in entry.items() if key in extra} == extra
    assert not {"audioOutputTokens", "imageInputTokens"} & entry.keys()


def test_cost_of_an_estimate_says_what_of_it_the_provider_told() -> None:
    entry = cost_of(Charge(Usage(10, 50), "estimated", 1, True, told=Usage(10, 3)))
    assert (entry["outputTokens"], entry["told"]) == (50, {"inputTokens": 10, "outputTokens": 3})
    assert "told" not in cost_of(Charge(Usage(10, 50), "estimated", 1, True))


def test_failed_attempt_keeps_its_own_error_and_no_invented_usage() -> None:
    x = finished()
    failed = _attempt(1, STARTED + 1, None)
    failed.error = UpstreamTimeout("No answer in time.", code="upstream_first_byte_timeout")
    entry = llm_call(x, failed, STARTED + 3, tracing=True)
    assert entry["error"] == {
        "code": "upstream_first_byte_timeout",
        "type": "server_error",
        "message": "No answer in time.",
    }
    assert (entry["durationMs"], entry["firstByteMs"]) == (2000.0, None)
    assert "cost" not in entry


def test_tool_calls_beyond_the_bound_are_counted() -> None:
    x = finished(tool_results=tuple(ToolCall("result", str(i), "f", 1) for i in range(300)))
    x.attempts[0].meter.tool_calls_dropped = 12
    assert len(tool_calls(x)) == 256 + 1
    assert llm_call(x, x.attempts[0], STARTED, tracing=True)["toolCallsDropped"] == 12
