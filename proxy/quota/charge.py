"""Phase 8: what each attempt cost. Pure; called once per exchange, in every case.

| the attempt                                | is charged                                                             |
|--------------------------------------------|------------------------------------------------------------------------|
| reported the provider's own figures        | those, at the tier it reports; in a session, each at its answer's model|
| the same, with a further answer begun      | those, and for that one the input of the latest, and its text in bytes |
| the same, but less than what was generated | of either figure the told or the estimated one, whichever is more      |
| the same, but more than any call can use   | as if they were missing                                                |
| sent nothing, or was answered status >= 300| nothing                                                                |
| told an error and no text, without figures | nothing; also an error inside a 200. Not so in a session, which goes on|
| ended, text was seen, without figures      | the bound of its input; as many output tokens as its text has bytes    |
| a stream without a maximum, aborted        | its input; its text in bytes, and what may have been in transit        |
| else aborted, cut, failed, or unreadable   | all that is reserved for it: how far the provider got is unknown       |

The last three are upper bounds within the reservation, so the leases behind it cover them, and are marked `estimated`.
An answer that is known to exceed its reservation is charged for the known length. If nothing was reserved, usage is
estimated from the text that passed: never zero. Figures are charged whatever the status is: who tells them bills them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from proxy.exchange import Attempt, Charge, Meter, Operation, ParsedRequest, Usage
from proxy.nouns.holds import Bound
from proxy.openai.estimate import estimate_usage
from proxy.openai.usage import add_usage, is_believable, is_short, unfinished

_MILLION = 1_000_000
_NOTHING = Charge(usage=Usage(), usage_source="none", cost_nanos=0, priced=True)


class Prices(Protocol):
    """The part of the price table that bounds and charges need."""

    def at(self, tier: str | None) -> "Prices":
        """Return the prices of a service tier."""

    def knows(self, model: str | None) -> bool:
        """Tell whether the model has a price of its own."""

    def is_own(self, model: str) -> bool:
        """Tell whether the settings have a price of exactly this name."""

    def price(self, model: str | None, usage: Usage, largest_input: int | None = None) -> tuple[int, bool]:
        """Return integer nano-dollars and whether the model has a price. `largest_input`: of the calls of a sum."""

    def highest_prices(self, model: str | None, *, media: bool, input_tokens: int | None = None) -> tuple[int, int]:
        """Return the highest nano-dollars per million input and output tokens; `media`: of audio and images too."""


def charge(
    attempt: Attempt,
    operation: Operation,
    request: ParsedRequest | None,
    prices: Prices,
    bound: Bound | None = None,
) -> Charge:
    """Return what `attempt` used and cost so far. `bound`: its current reservation, if it has one."""
    meter, asked = attempt.used, attempt.candidate.model
    prices = prices.at(meter.service_tier)
    told = meter.usage
    if told is None:
        return _estimated(attempt, operation, request, prices, bound)
    if meter.usage_by_model:
        return _of_session(meter, told, asked, prices)
    if not is_believable(told, bound):
        return replace(_estimated(attempt, operation, request, prices, bound), told=told)
    model = _billed(meter.response_model, asked, prices)
    cost_nanos, priced = prices.price(model, told)
    if is_short(meter):
        estimated = _estimated(attempt, operation, request, prices, bound)
        return _greater(Charge(told, "provider", cost_nanos, priced), estimated, model, prices)
    is_within = bound is None or (told.input_tokens <= bound.input_tokens and told.output_tokens <= bound.output_tokens)
    return Charge(told, "provider", cost_nanos, priced, None, not is_within)


def _of_session(meter: Meter, told: Usage, asked: str | None, prices: Prices) -> Charge:
    """Return the cost of a session's figures, each at its answer's model, and of an answer that has begun since.

    They may be above the reservation: a session reserves for each of its answers anew.
    """
    models = [_billed(name, asked, prices) for name in meter.usage_by_model]
    each = zip(models, meter.usage_by_model.values(), strict=True)
    parts = [prices.price(model, usage, meter.largest_input_tokens) for model, usage in each]
    cost_nanos, priced = sum(nanos for nanos, _ in parts), all(priced for _, priced in parts)
    if (more := unfinished(meter)) is None:
        return Charge(told, "provider", cost_nanos, priced)
    return Charge(add_usage(told, more), "estimated", cost_nanos + _most(more, models, prices), priced, told)


def _estimated(
    attempt: Attempt, operation: Operation, request: ParsedRequest | None, prices: Prices, bound: Bound | None
) -> Charge:
    """Return the cost of an attempt without figures."""
    meter, model = attempt.used, billed_model(attempt, prices)
    if not operation.billable or not attempt.sent or attempt.withdrawn or attempt.failure == "stream_error":
        return _NOTHING
    if (attempt.status or 0) >= 300 or _is_idle(operation, meter) or _has_failed(operation, meter):
        return _NOTHING
    if bound is None:
        usage = estimate_usage(request.input_text_bytes() if request else 0, meter.output_text_bytes)
        cost_nanos, priced = prices.price(model, usage)
        return Charge(usage, "estimated", cost_nanos, priced)
    borne = replace(bound, output_tokens=_output_tokens(meter, bound))
    usage = Usage(input_tokens=borne.input_tokens, output_tokens=borne.output_tokens)
    return Charge(usage, "estimated", borne.cost_nanos, prices.price(model, usage)[1])


def _greater(told: Charge, estimated: Charge, model: str | None, prices: Prices) -> Charge:
    """Return figures that cover both; what was told beyond the estimate costs as much as it can."""
    known, bound = told.usage, estimated.usage
    usage = replace(
        known,
        input_tokens=max(known.input_tokens, bound.input_tokens),
        output_tokens=max(known.output_tokens, bound.output_tokens),
    )
    beyond = Usage(usage.input_tokens - bound.input_tokens, usage.output_tokens - bound.output_tokens)
    most = estimated.cost_nanos + _most(beyond, [model], prices)
    return Charge(usage, "estimated", max(told.cost_nanos, most), told.priced, known)


def billed_model(attempt: Attempt, prices: Prices) -> str | None:
    """Return the model name in the answer, usually a dated one, unless the requested name has a price instead.

    A price that the settings give to the requested name counts whatever the answer calls the model.
    """
    return _billed(attempt.used.response_model, attempt.candidate.model, prices)


def _most(usage: Usage, models: Sequence[str | None], prices: Prices) -> int:
    """Return what tokens of the most expensive kind cost, at the most expensive of `models`."""
    each = [prices.highest_prices(model, media=True) for model in models]
    return max(-(-(usage.input_tokens * sent + usage.output_tokens * made) // _MILLION) for sent, made in each)


def _billed(answered: str | None, asked: str | None, prices: Prices) -> str | None:
    if answered is None or asked is None:
        return asked if answered is None else answered
    if answered == asked:
        return answered
    if prices.is_own(asked) and not prices.is_own(answered):
        return asked
    return asked if not prices.knows(answered) and prices.knows(asked) else answered


def _is_idle(operation: Operation, meter: Meter) -> bool:
    """Tell whether a session was closed cleanly without an answer: input is billed with its answer."""
    return operation.body == "websocket" and meter.terminated and not _has_begun(meter)


def _has_failed(operation: Operation, meter: Meter) -> bool:
    """Tell whether all that a provider said is that the call failed; in a session, an error may concern one message."""
    return meter.stream_error is not None and operation.body != "websocket" and not _has_begun(meter)


def _has_begun(meter: Meter) -> bool:
    return bool(meter.output_text_bytes or meter.sound_tokens)


def _output_tokens(meter: Meter, bound: Bound) -> int:
    """Return an upper bound of the output; with an enforced maximum, each event with text counts one token."""
    seen = meter.output_text_bytes + meter.sound_tokens
    if meter.cut:
        return bound.output_tokens
    if meter.terminated and seen:
        return max(min(seen, bound.output_tokens), meter.text_deltas)
    if bound.can_grow:
        # The length of a stream is known, except for what was in transit.
        return max(min(seen + bound.modest_output_tokens, bound.output_tokens), meter.text_deltas)
    return max(bound.output_tokens, meter.text_deltas if bound.is_capped else seen)
