"""What a bound amounts to."""

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.nouns.holds import Bound, Hold, Share

counts = st.integers(0, 10**9)
bounds = st.builds(
    Bound,
    input_tokens=counts,
    input_nanos=counts,
    output_tokens=counts,
    output_nanos_per_million=st.integers(0, 10**15),
    modest_output_tokens=st.just(0),
    is_capped=st.booleans(),
    can_be_capped=st.booleans(),
    can_grow=st.booleans(),
)


@settings(deadline=None)
@given(bounds)
def test_bound_when_it_is_priced_then_rounded_up_to_a_whole_nano_dollar(bound):
    exact = bound.input_nanos + Fraction(bound.output_tokens * bound.output_nanos_per_million, 1_000_000)
    assert exact <= bound.cost_nanos < exact + 1
    assert bound.tokens == bound.input_tokens + bound.output_tokens


@settings(deadline=None)
@given(bounds, counts)
def test_bound_when_it_is_extended_in_steps_then_it_never_costs_less(bound, more):
    extended = replace(bound, output_tokens=bound.output_tokens + more)
    step = replace(bound, input_tokens=0, input_nanos=0, output_tokens=more)
    assert bound.cost_nanos <= extended.cost_nanos <= bound.cost_nanos + step.cost_nanos
    assert extended.tokens == bound.tokens + step.tokens


def test_hold_when_nothing_is_said_about_leases_then_there_is_no_excuse():
    hold = Hold(3, (Share("11111111-2222-3333-4444-555555555555", 5, 7),))
    assert hold.unleased is None
    assert (hold.shares[0].tokens, hold.shares[0].cost_nanos) == (5, 7)
