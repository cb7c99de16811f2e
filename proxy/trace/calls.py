"""The calls of a trace: one entry per attempt and per tool call, their totals, and how long they were active.

Rule of the file: pure; keys of entries are the camelCase names that the API shows. Usage and cost come only from the
attempt's `Charge`, so an attempt that was not settled has none instead of a guess.
"""

from collections.abc import Sequence
from typing import Any

from proxy.exchange import MAX_TOOL_CALLS, Attempt, Charge, Exchange, ToolCall, Usage, UsageSource
from proxy.openai.usage import add_usage
from proxy.trace.failure import call_error
from proxy.trace.values import NAME, dollars, milliseconds

_MAX_COST_NANOS = 10**20 - 1
"""The maximum of NUMERIC(20, 9)."""
_MEDIA = (
    ("audioInputTokens", "audio_input_tokens"),
    ("audioOutputTokens", "audio_output_tokens"),
    ("imageInputTokens", "image_input_tokens"),
    ("imageOutputTokens", "image_output_tokens"),
    ("audioSeconds", "audio_seconds"),
    ("images", "images"),
)


def llm_call(x: Exchange, attempt: Attempt, ended: float, *, tracing: bool) -> dict[str, Any]:
    """Return the entry of one attempt. `ended`: end of an open attempt; `tracing`: more than accounting data."""
    meter = attempt.used
    first, over = attempt.first_byte_at, attempt.ended
    call: dict[str, Any] = {
        "index": attempt.index,
        "upstream": attempt.candidate.upstream,
        "model": attempt.candidate.model,
        "responseModel": meter.response_model,
        "status": attempt.status,
        "requestId": attempt.request_id,
        "startedMs": milliseconds(attempt.started - x.started),
        "firstByteMs": None if first is None else milliseconds(first - attempt.started),
        "durationMs": milliseconds((ended if over is None else over) - attempt.started),
    }
    if attempt.candidate.layer is not None:
        call["layer"] = attempt.candidate.layer
    if x.plan is not None and x.plan.is_managed:
        call["why"], call["failure"], call["credential"] = attempt.why, attempt.failure, attempt.credential
    if meter.service_tier is not None:
        call["serviceTier"] = meter.service_tier
    if attempt.check is not None:
        call["check"] = attempt.check
    if attempt.index < len(x.charges):
        call.update(cost_of(x.charges[attempt.index]))
    if tracing:
        call["responseId"] = meter.response_id
        call["finishReasons"] = meter.finish_reasons
        call["responseBytes"] = meter.response_bytes
        call["events"] = meter.events
        if meter.tool_calls_dropped:
            call["toolCallsDropped"] = meter.tool_calls_dropped
        call["error"] = call_error(attempt)
    return call


def cost_of(charge: Charge) -> dict[str, Any]:
    """Return the part of an entry that accounting reads; media figures only if there are any."""
    usage = charge.usage
    cost: dict[str, Any] = {
        "inputTokens": usage.input_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "cacheWriteTokens": usage.cache_write_tokens,
        "outputTokens": usage.output_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "usageSource": charge.usage_source,
        "cost": dollars(charge.cost_nanos),
        "priced": charge.priced,
    }
    if charge.told is not None:
        cost["told"] = {"inputTokens": charge.told.input_tokens, "outputTokens": charge.told.output_tokens}
    if usage.has_media:
        cost.update((key, value) for key, name in _MEDIA if (value := getattr(usage, name)))
    return cost


def total_of(charges: Sequence[Charge]) -> Charge:
    """Return the sum of several charges. If one is an estimate, so is the sum."""
    if len(charges) == 1:  # nearly always
        return charges[0]
    usage, nanos = Usage(), 0
    source: UsageSource = "none"
    for charge in charges:
        usage = add_usage(usage, charge.usage)
        nanos += charge.cost_nanos
        if source != "estimated" and charge.usage_source != "none":
            source = charge.usage_source
    return Charge(usage, source, nanos, all(charge.priced for charge in charges))


def totals(charges: Sequence[Charge]) -> dict[str, Any]:
    """Return the columns of a trace that add up its charges."""
    total = total_of(charges)
    usage, nanos = total.usage, total.cost_nanos
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": total.usage_source,
        "total_cost": dollars(nanos if nanos < _MAX_COST_NANOS else _MAX_COST_NANOS),
    }


def tool_calls(x: Exchange) -> list[dict[str, Any]]:
    """Return the results that the client sent back, then the calls that the models made."""
    calls: list[tuple[int | None, ToolCall]] = []
    if x.request is not None and x.request.tool_results:
        calls += [(None, call) for call in x.request.tool_results[:MAX_TOOL_CALLS]]
    for attempt in x.attempts:
        if made := attempt.used.tool_calls:
            calls += [(attempt.index, call) for call in made]
    if not calls:  # nearly always
        return []
    return [
        {
            "kind": call.kind,
            "id": call.id[:NAME],
            "name": call.name[:NAME],
            "bytes": call.arguments_bytes,
            "llmCall": index,
        }
        for index, call in calls
    ]


def busy_seconds(attempts: list[Attempt], ended: float) -> float:
    """Return the length of the union of the attempts' intervals: parallel attempts count once."""
    if len(attempts) == 1:  # nearly always
        only = attempts[0]
        stop = ended if only.ended is None else only.ended
        return stop - only.started if stop > only.started else 0.0
    total, reached = 0.0, float("-inf")
    for attempt in sorted(attempts, key=lambda attempt: attempt.started):
        stop = ended if attempt.ended is None else attempt.ended
        start = max(attempt.started, reached)
        if stop > start:
            total += stop - start
            reached = stop
    return total
