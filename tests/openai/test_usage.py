"""Usage objects of every spelling, believable or not."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Usage
from proxy.nouns.holds import Bound
from proxy.openai.usage import MAX_TOKENS, add_usage, is_believable, read_seconds, read_usage

CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 10, "cache_write_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 4, "accepted_prediction_tokens": 0},
}
RESPONSES = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 7},
}
IMAGES = {
    "input_tokens": 50,
    "output_tokens": 60,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens_details": {"image_tokens": 60},
}
REALTIME = {
    "input_tokens": 9,
    "output_tokens": 8,
    "input_token_details": {"audio_tokens": 3},
    "output_token_details": {"audio_tokens": 2},
}


XAI = {
    "prompt_tokens": 32,
    "completion_tokens": 9,
    "total_tokens": 135,
    "completion_tokens_details": {"reasoning_tokens": 94},
}
CACHED_AUDIO = {
    "input_tokens": 1000,
    "output_tokens": 0,
    "input_token_details": {
        "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 390, "image_tokens": 10},
        "text_tokens": 180,
        "audio_tokens": 800,
        "image_tokens": 20,
        "cached_tokens": 500,
    },
}
CACHES = {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
CACHED_AUDIO_USAGE = Usage(
    1000,
    cached_input_tokens=500,
    audio_input_tokens=800,
    image_input_tokens=20,
    cached_audio_tokens=390,
    cached_image_tokens=10,
)


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        (
            CHAT,
            Usage(
                100,
                50,
                cached_input_tokens=40,
                cache_write_tokens=5,
                reasoning_tokens=20,
                audio_input_tokens=10,
                audio_output_tokens=4,
            ),
        ),
        (RESPONSES, Usage(36, 87, cached_input_tokens=6, cache_write_tokens=2, reasoning_tokens=7)),
        (IMAGES, Usage(50, 60, image_input_tokens=40, image_output_tokens=60)),
        (REALTIME, Usage(9, 8, audio_input_tokens=3, audio_output_tokens=2)),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8)),
        ({"prompt_tokens": 8.0, "completion_tokens": 0}, Usage(8)),
        ({"prompt_tokens": 8, "prompt_cache_hit_tokens": 3}, Usage(8, cached_input_tokens=3)),
        ({"output_tokens": 8, "input_tokens": None}, Usage(0, 8)),
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 45}, Usage(14, 45)),
        ({"type": "duration", "seconds": 9}, Usage(audio_seconds=9.0)),
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 9}}, Usage(5, cached_input_tokens=5)),
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": -1}}, Usage(5)),
        ({"input_tokens": 5, "input_tokens_details": "odd"}, Usage(5)),
        ({"input_tokens": MAX_TOKENS}, Usage(MAX_TOKENS)),
        (XAI, Usage(32, 103, reasoning_tokens=94)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, Usage(32, 103)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 40}, Usage(32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 1e18}, Usage(32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": "135"}, Usage(32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 999_999_999}, Usage(32, 9)),
        (CACHED_AUDIO, CACHED_AUDIO_USAGE),
        ({"total_tokens": 5}, Usage(5)),
        ({"prompt_tokens": 8, "cached_tokens": 3}, Usage(8, cached_input_tokens=3)),
        ({"input_tokens": 10, "output_tokens": 5} | CACHES, Usage(1210, 5, 1000, 200)),
        ({"prompt_tokens": 1210, "completion_tokens": 5, "total_tokens": 1215} | CACHES, Usage(1210, 5, 1000, 200)),
        ({"input_tokens": 1210, "output_tokens": 5, "total_tokens": 1215} | CACHES, Usage(1210, 5, 1000, 200)),
        ({"input_tokens": 10, "cache_read_input_tokens": -1, "cache_creation_input_tokens": None}, Usage(10)),
    ],
)
def test_read_usage_when_it_is_believable_then_all_its_figures(value: object, usage: Usage) -> None:
    assert read_usage(value) == usage


@pytest.mark.parametrize("absurd", [-1, 10**18, 1e18, "12", True, float("nan"), float("inf"), 1.5, [], {}], ids=repr)
def test_read_usage_when_a_total_is_absurd_then_nothing_is_believed(absurd: object) -> None:
    assert read_usage({"prompt_tokens": absurd, "completion_tokens": 5}) is None
    assert read_usage({"input_tokens": 5, "output_tokens": absurd}) is None
    assert read_usage({"type": "duration", "seconds": absurd}) is None or absurd == 1.5


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"total_tokens": -5}, {"type": "duration"}], ids=repr)
def test_read_usage_when_there_are_no_figures_then_none(value: object) -> None:
    assert read_usage(value) is None


def test_read_seconds_when_it_is_more_than_a_day_then_none() -> None:
    assert read_seconds(86_400) == Usage(audio_seconds=86_400.0)
    assert read_seconds(86_401) is None


@pytest.mark.parametrize(
    ("usage", "reserved", "believable"),
    [
        pytest.param(Usage(20_000_000, 20_000_000), None, True, id="nothing reserved: the most of any call"),
        pytest.param(Usage(20_000_001), None, False, id="nothing reserved: more"),
        pytest.param(Usage(2_010_000), (100, 50), True, id="a small request: a context, and its input many times"),
        pytest.param(Usage(2_010_001), (100, 50), False, id="a small request: more"),
        pytest.param(Usage(3_600_000), (16_384, 50), True, id="what only the provider knows is read many times"),
        pytest.param(Usage(25_000_000), (30_000_000, 0), True, id="a huge request: what was reserved"),
        pytest.param(Usage(0, 2_000_050), (100, 50), True, id="output: a maximum that was ignored"),
        pytest.param(Usage(0, 2_000_051), (100, 50), False, id="output: more"),
    ],
)
def test_usage_when_no_model_could_have_used_it_then_not_believed(
    usage: Usage, reserved: tuple[int, int] | None, believable: bool
) -> None:
    bound = None if reserved is None else Bound(reserved[0], 0, reserved[1], 0, reserved[1], True, True)
    assert is_believable(usage, bound) is believable


def test_add_usage_when_calls_share_a_connection_then_every_figure_adds_up() -> None:
    one = Usage(*range(1, 10), audio_seconds=0.5, images=3)
    assert add_usage(None, one) is one
    assert asdict(add_usage(one, one)) == {name: 2 * value for name, value in asdict(one).items()}


NAMES = [
    "prompt_tokens",
    "input_tokens",
    "completion_tokens",
    "output_tokens",
    "cached_tokens",
    "type",
    "seconds",
    "reasoning_tokens",
    "prompt_tokens_details",
    "output_tokens_details",
    "duration",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
]


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["duration", "1"]),
            lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
            max_leaves=6,
        ),
    )
)
def test_read_usage_when_it_is_anything_then_bounded_figures_or_none(value: dict[str, object]) -> None:
    usage = read_usage(value)
    if usage is not None:
        figures = asdict(usage)
        assert all(0 <= figure <= 3 * MAX_TOKENS for figure in figures.values())
        assert usage.cached_input_tokens <= usage.input_tokens
        assert usage.reasoning_tokens <= usage.output_tokens
        json.dumps(figures, allow_nan=False)
