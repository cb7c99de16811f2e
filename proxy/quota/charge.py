"""Phase 8: what each attempt cost. Pure; called once per exchange, whatever happened to it.

The provider's own figures win. Where an answer was begun but brought none (aborted, cut, missing), usage is estimated
from the text that went in and the text that came out, and marked `estimated`: it is never zero and never silently
guessed. An attempt of which nothing left this process, and an answer with an error status, cost nothing.
"""

from typing import Protocol

from proxy.exchange import Attempt, Charge, Operation, ParsedRequest, Usage, UsageSource
from proxy.openai.estimate import estimate_usage

_NOTHING = Charge(usage=Usage(), usage_source="none", cost_nanos=0, priced=True)


class Prices(Protocol):
    """The price table, as far as charging needs it."""

    def knows(self, model: str | None) -> bool:
        """Tell whether the model has a price of its own."""

    def price(self, model: str | None, usage: Usage) -> tuple[int, bool]:
        """Return integer nano-dollars and whether the model has a price."""


def charge(attempt: Attempt, operation: Operation, request: ParsedRequest | None, prices: Prices) -> Charge:
    """Return what `attempt` used and cost so far."""
    source: UsageSource = "provider"
    usage = attempt.meter.usage
    if usage is None:
        if not operation.billable or not attempt.sent or (attempt.status or 0) >= 400:
            return _NOTHING
        source = "estimated"
        usage = estimate_usage(request.input_text_bytes() if request else 0, attempt.meter.output_text_bytes)
    model = billed_model(attempt, prices)
    cost_nanos, priced = prices.price(model, usage)
    return Charge(usage, source, cost_nanos, priced)


def billed_model(attempt: Attempt, prices: Prices) -> str | None:
    """Return the name in the answer, usually the dated one, unless only the name asked for has a price."""
    answered, asked = attempt.meter.response_model, attempt.candidate.model
    if answered is None or (asked is not None and not prices.knows(answered) and prices.knows(asked)):
        return asked
    return answered
