from dataclasses import replace

import pytest

from proxy.exchange import Attempt, Candidate, Operation, Usage
from proxy.openai.request import parse_empty
from proxy.quota.charge import billed_model, charge

CHAT = Operation("chat.completions.create", "chat", "json", "chat", billable=True)
MODELS = Operation("models.list", "models", "none", "generic", billable=False)


class Prices:
    """One nano-dollar per token for models it knows."""

    def knows(self, model):
        return model in ("m", "m-2024-08-06")

    def price(self, model, usage):
        return (usage.input_tokens + usage.output_tokens, True) if self.knows(model) else (0, False)


def attempt(*, sent=True, status=200, usage=None, output_text_bytes=0, answered=None, asked="m"):
    made = Attempt(0, Candidate("u", asked), 0.0, sent=sent, status=status)
    made.meter.usage = usage
    made.meter.output_text_bytes = output_text_bytes
    made.meter.response_model = answered
    return made


def request(input_text_bytes=400):
    return replace(parse_empty(), input_text_bytes=lambda: input_text_bytes)


def test_charge_when_the_provider_named_usage_then_it_counts_exactly():
    result = charge(attempt(usage=Usage(input_tokens=7, output_tokens=5)), CHAT, request(), Prices())
    assert (result.usage_source, result.cost_nanos, result.priced) == ("provider", 12, True)


def test_charge_when_usage_is_missing_then_text_that_passed_is_estimated_and_marked():
    result = charge(attempt(output_text_bytes=40), CHAT, request(), Prices())
    assert result.usage_source == "estimated"
    assert (result.usage.input_tokens, result.usage.output_tokens) == (100, 10)


@pytest.mark.parametrize(
    ("facts", "operation"),
    [
        pytest.param({"sent": False, "status": None}, CHAT, id="nothing left"),
        pytest.param({"status": 429}, CHAT, id="refused by the provider"),
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


@pytest.mark.parametrize(
    ("answered", "asked", "billed"),
    [
        ("m-2024-08-06", "m", "m-2024-08-06"),
        ("somebody's-own-name", "m", "m"),
        ("unknown", "also-unknown", "unknown"),
        (None, "m", "m"),
        ("unknown", None, "unknown"),
    ],
)
def test_billed_model_when_names_differ_then_the_priced_one_counts(answered, asked, billed):
    assert billed_model(attempt(answered=answered, asked=asked), Prices()) == billed
