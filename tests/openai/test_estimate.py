"""Estimates from text sizes."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.estimate import estimate_usage


def test_estimate_when_there_was_no_text_then_zero() -> None:
    usage = estimate_usage(0, 0)
    assert (usage.input_tokens, usage.output_tokens) == (0, 0)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_estimate_when_there_was_text_then_a_quarter_rounded_up(sent: int, received: int) -> None:
    usage = estimate_usage(sent, received)
    assert (usage.input_tokens, usage.output_tokens) == ((sent + 3) // 4, (received + 3) // 4)
    assert usage.input_tokens >= 1 and usage.output_tokens >= 1
