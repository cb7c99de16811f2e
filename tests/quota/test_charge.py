from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import Attempt, Candidate, Operation, Usage
from proxy.nouns.holds import Bound
from proxy.openai.request import parse_empty
from proxy.quota.charge import billed_model, charge

CHAT = Operation("chat.completions.create", "chat", "json", "chat", billable=True)
REALTIME = Operation("realtime.connect", "realtime", "websocket", "realtime", billable=True)
MODELS = Operation("models.list", "models", "none", "generic", billable=False)


class Prices:
    """One nano-dollar per token for models it knows; twice as much in the tier `priority`."""

    def at(self, tier):
        return PriorityPrices() if tier == "priority" else self

    def knows(self, model):
        return model in ("m", "m-2024-08-06", "contract")

    def is_own(self, model):
        return model == "contract"

    def price(self, model, usage, largest_input=None):
        return (usage.input_tokens + usage.output_tokens, True) if self.knows(model) else (0, False)

    def highest_prices(self, model, *, media, input_tokens=None):
        return (1_000_000, 1_000_000) if self.knows(model) else (0, 0)


class PriorityPrices(Prices):
    def price(self, model, usage, largest_input=None):
        nanos, priced = super().price(model, usage)
        return 2 * nanos, priced


def attempt(
    *,
    sent=True,
    status=200,
    usage=None,
    output_text_bytes=0,
    deltas=0,
    ended=False,
    cut=False,
    answered=None,
    asked="m",
):
    made = Attempt(0, Candidate("u", asked), 0.0, sent=sent, status=status)
    made.meter.usage = usage
    made.meter.output_text_bytes = output_text_bytes
    made.meter.text_deltas = deltas
    made.meter.terminated = ended
    made.meter.cut = cut
    made.meter.response_model = answered
    return made


def reserved(*, output_tokens=50, is_capped=True):
    return Bound(100, 700, output_tokens, 3_000_000, output_tokens, is_capped=is_capped, can_be_capped=True)


def request(input_text_bytes=400):
    return replace(parse_empty(), input_text_bytes=lambda: input_text_bytes)


@pytest.mark.parametrize(("tier", "nanos"), [(None, 12), ("default", 12), ("priority", 24)])
def test_charge_when_the_answer_names_its_tier_then_that_has_the_price(tier, nanos):
    made = attempt(usage=Usage(input_tokens=7, output_tokens=5))
    made.meter.service_tier = tier
    assert charge(made, CHAT, request(), Prices()).cost_nanos == nanos


def test_charge_when_the_provider_named_usage_then_it_counts_exactly():
    result = charge(attempt(usage=Usage(input_tokens=7, output_tokens=5)), CHAT, request(), Prices())
    assert (result.usage_source, result.cost_nanos, result.priced) == ("provider", 12, True)


@pytest.mark.parametrize(
    ("parts", "cost"),
    [
        ({"dear": Usage(7, 5), "m": Usage(1, 2)}, (120 + 3, True)),
        ({None: Usage(7, 5), "m-2024-08-06": Usage(1, 2)}, (12 + 3, True)),
        ({"unknown": Usage(7, 5)}, (12, True)),
    ],
)
def test_charge_when_a_session_used_several_models_then_each_part_has_its_own_price(parts, cost):
    class DearToo(Prices):
        def knows(self, model):
            return model == "dear" or super().knows(model)

        def price(self, model, usage, largest_input=None):
            assert largest_input == 7
            return (
                (10 * (usage.input_tokens + usage.output_tokens), True)
                if model == "dear"
                else super().price(model, usage)
            )

    one = attempt(usage=sum_of(parts.values()), answered="m")
    one.meter.usage_by_model, one.meter.largest_input_tokens = parts, 7
    result = charge(one, REALTIME, None, DearToo())
    assert (result.usage, result.usage_source) == (sum_of(parts.values()), "provider")
    assert (result.cost_nanos, result.priced) == cost


def test_charge_when_a_further_answer_of_a_session_was_begun_then_it_is_estimated_on_top():
    one = attempt(usage=Usage(7, 5), output_text_bytes=30, answered="m")
    one.meter.usage_by_model = {"unknown": Usage(), "m": Usage(7, 5)}
    one.meter.sound_tokens, one.meter.answered, one.meter.latest_input_tokens = 4, 30, 6
    result = charge(one, REALTIME, None, Prices())
    assert (result.usage, result.usage_source) == (Usage(13, 9), "estimated")
    assert (result.cost_nanos, result.priced, result.told) == (12 + 10, True, Usage(7, 5))
    one.meter.answered = 34
    assert charge(one, REALTIME, None, Prices()).usage_source == "provider"


def sum_of(parts):
    return Usage(sum(one.input_tokens for one in parts), sum(one.output_tokens for one in parts))


def test_charge_when_usage_is_missing_then_text_that_passed_is_estimated_and_marked():
    result = charge(attempt(output_text_bytes=40), CHAT, request(), Prices())
    assert result.usage_source == "estimated"
    assert (result.usage.input_tokens, result.usage.output_tokens) == (100, 10)


@pytest.mark.parametrize(
    ("facts", "operation"),
    [
        pytest.param({"sent": False, "status": None}, CHAT, id="nothing left"),
        pytest.param({"status": 429}, CHAT, id="refused by the provider"),
        pytest.param({"status": 307}, CHAT, id="sent elsewhere by the provider"),
        pytest.param({}, MODELS, id="free of charge"),
    ],
)
def test_charge_when_nothing_was_billable_then_it_is_zero_and_says_so(facts, operation):
    result = charge(attempt(**facts), operation, request(), Prices())
    assert (result.usage_source, result.cost_nanos) == ("none", 0)


def test_charge_when_a_request_left_and_no_answer_came_then_its_input_is_charged():
    result = charge(attempt(status=None), CHAT, request(), Prices())
    assert (result.usage_source, result.usage.input_tokens) == ("estimated", 100)


def test_charge_when_an_unknown_operation_brings_usage_then_it_is_charged():
    assert charge(attempt(usage=Usage(input_tokens=3)), MODELS, None, Prices()).cost_nanos == 3


# --- with a reservation --------------------------------------------------------------------------------------------


def test_charge_when_usage_is_named_then_the_reservation_does_not_matter():
    result = charge(attempt(usage=Usage(input_tokens=700, output_tokens=500)), CHAT, request(), Prices(), reserved())
    assert (result.usage_source, result.cost_nanos) == ("provider", 1200)


@pytest.mark.parametrize(
    ("facts", "bound", "output_tokens"),
    [
        pytest.param({"ended": True, "output_text_bytes": 30, "deltas": 9}, reserved(), 30, id="ended: its bytes"),
        pytest.param({"ended": True, "output_text_bytes": 300, "deltas": 9}, reserved(), 50, id="ended: at most all"),
        pytest.param({"ended": True, "output_text_bytes": 300, "deltas": 80}, reserved(), 80, id="ended: longer"),
        pytest.param({"ended": True}, reserved(), 50, id="ended: nothing to be read"),
        pytest.param({"ended": True, "cut": True, "output_text_bytes": 30}, reserved(), 50, id="ended by us"),
        pytest.param({"output_text_bytes": 30, "deltas": 9}, reserved(), 50, id="cut"),
        pytest.param({"output_text_bytes": 300, "deltas": 80}, reserved(), 80, id="cut: longer"),
        pytest.param({"output_text_bytes": 300}, reserved(is_capped=False), 300, id="cut: longer without a maximum"),
        pytest.param({"status": None}, reserved(), 50, id="no answer"),
    ],
)
def test_charge_when_usage_is_missing_then_an_upper_bound_is_charged(facts, bound, output_tokens):
    result = charge(attempt(**facts), CHAT, request(), Prices(), bound)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (100, output_tokens)
    assert (result.usage_source, result.cost_nanos, result.priced) == ("estimated", 700 + 3 * output_tokens, True)


@pytest.mark.parametrize(
    ("usage", "facts", "charged"),
    [
        pytest.param(Usage(40, 2), {"interim": True, "output_text_bytes": 30}, (100, 50, 850), id="torn early"),
        pytest.param(Usage(140, 2), {"interim": True}, (140, 50, 890), id="torn early, more input"),
        pytest.param(Usage(), {"ended": True, "output_text_bytes": 30}, (100, 30, 790), id="zeros with text"),
        pytest.param(Usage(40), {"ended": True, "output_text_bytes": 30}, (100, 30, 790), id="no output with text"),
    ],
)
def test_charge_when_the_figures_are_short_of_what_was_generated_then_the_greater_of_either(usage, facts, charged):
    interim = facts.pop("interim", False)
    one = attempt(usage=usage, **facts)
    one.meter.is_interim = interim
    result = charge(one, CHAT, request(), Prices(), reserved())
    assert (result.usage.input_tokens, result.usage.output_tokens, result.cost_nanos) == charged
    assert (result.usage_source, result.told) == ("estimated", usage)


@pytest.mark.parametrize(
    ("usage", "status", "expected"),
    [
        pytest.param(Usage(10**9, 5), 200, ("estimated", 100, 50, 850), id="input"),
        pytest.param(Usage(10, 10**9), 200, ("estimated", 100, 50, 850), id="output"),
        pytest.param(Usage(10, 10**9), 503, ("none", 0, 0, 0), id="of an error"),
        pytest.param(Usage(1_000_000, 5), 200, ("provider", 1_000_000, 5, 1_000_005), id="possible"),
        pytest.param(Usage(7, 5), 503, ("provider", 7, 5, 12), id="possible, of an error"),
    ],
)
def test_charge_when_the_figures_are_impossible_then_as_if_missing_and_they_are_on_record(usage, status, expected):
    result = charge(attempt(usage=usage, status=status), CHAT, request(), Prices(), reserved())
    figures = (result.usage_source, result.usage.input_tokens, result.usage.output_tokens, result.cost_nanos)
    assert figures == expected
    assert result.told == (None if expected[0] == "provider" else usage)


@pytest.mark.parametrize(
    ("usage", "is_beyond"),
    [(Usage(100, 50), False), (Usage(101, 50), True), (Usage(100, 51), True), (Usage(100, 10**9), False)],
)
def test_charge_when_the_figures_are_beyond_the_reservation_then_they_count_and_it_says_so(usage, is_beyond):
    result = charge(attempt(usage=usage), CHAT, request(), Prices(), reserved())
    assert (result.is_beyond, result.usage == usage) == (is_beyond, usage.output_tokens < 10**9)
    assert not charge(attempt(usage=usage), CHAT, request(), Prices()).is_beyond


@pytest.mark.parametrize(
    ("facts", "operation", "is_free"),
    [
        pytest.param({}, CHAT, True, id="a whole answer, or a stream at its beginning"),
        pytest.param({"output_text_bytes": 3}, CHAT, False, id="behind some text"),
        pytest.param({"status": 101}, REALTIME, False, id="in a session"),
    ],
)
def test_charge_when_a_provider_told_an_error_alone_then_it_is_free_as_by_its_status(facts, operation, is_free):
    one = attempt(**facts)
    one.meter.stream_error = "server_error"
    assert (charge(one, operation, request(), Prices(), reserved()).usage_source == "none") is is_free


@pytest.mark.parametrize("usage", [Usage(audio_seconds=3.0), Usage(images=1)])
def test_charge_when_units_are_not_tokens_then_their_lack_is_no_lack(usage):
    result = charge(attempt(usage=usage, ended=True, output_text_bytes=30), CHAT, request(), Prices(), reserved())
    assert (result.usage, result.usage_source) == (usage, "provider")


@settings(deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**4),
    st.integers(0, 10**4),
    st.integers(0, 10**6),
    st.sampled_from([0, 1, 333_333, 10**9]),
)
def test_charge_when_the_stream_kept_to_its_bound_then_the_reservation_covers_it(
    ended, cut, size, output, nanos, price
):
    bound = Bound(10, nanos, output, price, output, is_capped=False, can_be_capped=True)
    facts = attempt(ended=ended, cut=cut, output_text_bytes=min(size, output), deltas=min(size, output) // 4)
    result = charge(facts, CHAT, request(), Prices(), bound)
    assert result.usage.input_tokens + result.usage.output_tokens <= bound.tokens
    assert result.cost_nanos <= bound.cost_nanos
    if not ended or cut:
        assert result.cost_nanos == bound.cost_nanos


@pytest.mark.parametrize(
    ("facts", "operation"),
    [
        pytest.param({"sent": False, "status": None}, CHAT, id="nothing left"),
        pytest.param({"status": 500}, CHAT, id="refused by the provider"),
        pytest.param({"status": 302}, CHAT, id="sent elsewhere by the provider"),
        pytest.param({}, MODELS, id="free of charge"),
        pytest.param({"ended": True, "status": 101}, REALTIME, id="a session without an answer"),
    ],
)
def test_charge_when_nothing_was_used_then_nothing_of_the_reservation_is_kept(facts, operation):
    result = charge(attempt(**facts), operation, request(), Prices(), reserved())
    assert (result.usage_source, result.cost_nanos, result.usage) == ("none", 0, Usage())


def test_charge_when_a_session_is_lost_then_its_reservation_is_kept():
    assert charge(attempt(status=101), REALTIME, None, Prices(), reserved()).cost_nanos == 850


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "asked", "billed"),
    [
        ("m-2024-08-06", "m", "m-2024-08-06"),
        ("somebody's-own-name", "m", "m"),
        ("unknown", "also-unknown", "unknown"),
        (None, "m", "m"),
        ("unknown", None, "unknown"),
        ("m-2024-08-06", "contract", "contract"),
        ("contract", "m", "contract"),
    ],
)
def test_billed_model_when_names_differ_then_the_priced_one_counts(answered, asked, billed):
    assert billed_model(attempt(answered=answered, asked=asked), Prices()) == billed
