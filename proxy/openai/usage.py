"""Reads a `usage` object, in every format of OpenAI and compatible providers, into one `Usage`.

| where                     | input           | output              | details                                        |
|---------------------------|-----------------|---------------------|------------------------------------------------|
| chat, completions, embed. | `prompt_tokens` | `completion_tokens` | `prompt_tokens_details`, `completion_tokens_`  |
| responses, images         | `input_tokens`  | `output_tokens`     | `input_tokens_details`, `output_tokens_details`|
| transcription, realtime   | `input_tokens`  | `output_tokens`     | `input_token_details`, `output_token_details`  |
| whisper                   | `seconds`       |                     |                                                |
| messages (Anthropic)      | `input_tokens`  | `output_tokens`     | `cache_read_input_tokens`, `cache_creation_...`|
| rerankers, some embeddings| `total_tokens`  |                     |                                                |

Anthropic counts cached input beside `input_tokens`; gateways that repeat its names in OpenAI's format do not. Some
providers (xAI, Gemini) count reasoning beside `completion_tokens`: only `total_tokens` includes it. So what a total has
beyond input and output is output.

Rule of the file: a provider may send anything. A total that is negative, not a number, or absurd invalidates the whole
object (then usage is estimated); such a detail is ignored, and no detail exceeds its total. Nothing raises. Figures
that no call could have used are read, as the trace tells them, but not believed (`is_believable`).

Source: OpenAI API reference, "usage" of each endpoint; DeepSeek's `prompt_cache_hit_tokens`; xAI's guide "Reasoning";
Gemini's OpenAI compatibility; Anthropic's API reference, "Messages" and "Streaming messages".
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.exchange import Meter, Usage
from proxy.nouns.holds import Bound

MAX_TOKENS = 1_000_000_000
"""A higher figure is not even a count."""
MAX_SECONDS = 86_400.0
"""More than any recording has: uploads are limited to hours."""
MOST_TOKENS = 20_000_000
"""More than any call uses: ten times the largest context, for hosted tools that let a model read it again and again."""
_CONTEXT = 2_000_000
"""The largest context of a model: what a provider may add to a request on its own (searches, templates, reasoning)."""
_READ_AGAIN = 100
"""How often hosted tools may let a model read its input."""
_MOST_BESIDE = 1_000_000
"""More reasoning than any call has: what a total has beyond that is a fault of the total."""

_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_INPUT_PARTS = {
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_OUTPUT_PARTS = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}


def read_usage(value: Any) -> Usage | None:
    """Return the figures of a `usage` object; `None` if it has no plausible ones.

    Cost: about 1 us; most details are zero, and only the others are read (bench/wire_format.py).
    """
    if type(value) is not dict:
        return None
    get = value.get
    if get("type") == "duration":
        return read_seconds(get("seconds"))
    if (sent_input := get("prompt_tokens")) is None:
        sent_input = get("input_tokens")
    if (sent_output := get("completion_tokens")) is None:
        sent_output = get("output_tokens")
    total = get("total_tokens")
    if sent_input is None and sent_output is None:
        if total is None:
            return None
        sent_input = total
    input_tokens, output_tokens = _total(sent_input), _total(sent_output)
    if input_tokens is None or output_tokens is None:
        return None
    usage = Usage(input_tokens, output_tokens)
    if total is not None and total != input_tokens + output_tokens:
        beside = (_count(total) or 0) - input_tokens - output_tokens
        if 0 < beside <= _MOST_BESIDE:
            usage.output_tokens += beside
    _note_cached(usage, value)
    _note_parts(usage, value, _INPUT_DETAILS, _INPUT_PARTS, usage.input_tokens)
    _note_parts(usage, value, _OUTPUT_DETAILS, _OUTPUT_PARTS, usage.output_tokens)
    return usage


def later_usage(known: Usage, latest: Usage, sent: Mapping[str, Any]) -> Usage:
    """Return the figures of a stream that has told some before. `sent`: the object that `latest` was read from.

    They are cumulative, so the latest count, but none is lower than before. What tells its input once (Anthropic), or
    only figures of the piece (then without input), continues the earlier ones.
    """
    output = max(known.output_tokens, latest.output_tokens)
    if sent.get("prompt_tokens") is None and sent.get("input_tokens") is None:
        return replace(known, output_tokens=output, reasoning_tokens=latest.reasoning_tokens)
    if known.input_tokens and not latest.input_tokens:
        return add_usage(known, latest)
    return replace(latest, input_tokens=max(known.input_tokens, latest.input_tokens), output_tokens=output)


def read_seconds(value: Any) -> Usage | None:
    """Return a billed duration; `None` if it is not a plausible number of seconds."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
        return None
    return Usage(audio_seconds=float(value))


def add_usage(total: Usage | None, more: Usage) -> Usage:
    """Return the sum of two calls' figures, for connections that carry many answers."""
    if total is None:
        return more
    return Usage(*(getattr(total, name) + getattr(more, name) for name in Usage.__slots__))


def is_believable(usage: Usage, bound: Bound | None) -> bool:
    """Tell whether a call can have used so much. `bound`: what is reserved for it, if anything is.

    A provider bills what it tells, so figures beyond the reservation count as long as they are possible at all: unseen
    context, results of searches, a maximum that was ignored. What is impossible is a fault, and must not use up a day.
    """
    if bound is None:
        return usage.input_tokens <= MOST_TOKENS and usage.output_tokens <= MOST_TOKENS
    read, most = usage.input_tokens, bound.input_tokens
    is_read = read <= most or (read <= _CONTEXT + _READ_AGAIN * most and read <= MOST_TOKENS)
    return is_read and usage.output_tokens <= bound.output_tokens + _CONTEXT


def is_short(meter: Meter) -> bool:
    """Tell whether the figures do not cover what was generated: text without output, or a stream that went on.

    Some providers tell figures with every chunk, some zeros with the first: neither is what a torn stream costs.
    """
    usage = meter.usage
    if usage is None or meter.usage_by_model:
        return False
    if meter.is_interim and not (meter.terminated and meter.answered == meter.output_text_bytes + meter.sound_tokens):
        return True
    is_by_unit = usage.audio_seconds > 0 or usage.images > 0
    return usage.output_tokens == 0 and meter.output_text_bytes > 0 and not is_by_unit


def unfinished(meter: Meter) -> Usage | None:
    """Return an estimate of a session's answer that has begun after others were reported; `None` if there is none."""
    if meter.usage is None or not meter.usage_by_model:
        return None
    output = meter.output_text_bytes + meter.sound_tokens - meter.answered
    return Usage(meter.latest_input_tokens, output) if output > 0 else None


def _note_parts(
    usage: Usage, value: dict[str, Any], names: tuple[str, ...], fields: dict[str, str], total: int
) -> None:
    """Set the fields of `usage` from the first of the members `names` with details."""
    for name in names:
        if (details := value.get(name)) is not None:
            break
    if type(details) is dict and any(details.values()):  # mostly they are all zero
        for part, sent in details.items():
            if sent and part in fields:
                setattr(usage, fields[part], _part(sent, total))
            elif part == "cached_tokens_details" and type(sent) is dict:
                _note_cached_media(usage, sent, details)


def _note_cached(usage: Usage, value: dict[str, Any]) -> None:
    """Note cached input that is told beside the details: as part of the input or, by Anthropic, in addition to it."""
    get = value.get
    if hits := get("prompt_cache_hit_tokens") or get("cached_tokens"):
        usage.cached_input_tokens = _part(hits, usage.input_tokens)
    read, made = get("cache_read_input_tokens"), get("cache_creation_input_tokens")
    if read is None and made is None:
        return
    read_tokens, made_tokens = _total(read) or 0, _total(made) or 0
    if value.get("prompt_tokens") is None and value.get("total_tokens") is None:
        usage.input_tokens += read_tokens + made_tokens
    usage.cached_input_tokens = min(read_tokens, usage.input_tokens)
    usage.cache_write_tokens = min(made_tokens, usage.input_tokens)


def _note_cached_media(usage: Usage, sent: dict[str, Any], details: dict[str, Any]) -> None:
    """Note how much of the cached input is not text. `details`: of the whole input."""
    cached = _count(details.get("cached_tokens")) or 0
    usage.cached_audio_tokens = min(_part(sent.get("audio_tokens"), cached), _count(details.get("audio_tokens")) or 0)
    usage.cached_image_tokens = min(_part(sent.get("image_tokens"), cached), _count(details.get("image_tokens")) or 0)


def _total(value: Any) -> int | None:
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    return 0 if value is None else _count(value)


def _part(value: Any, total: int) -> int:
    return min(_count(value) or 0, total)


def _count(value: Any) -> int | None:
    """Return an integer in range, or `None`; some providers send `12.0`."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_TOKENS or value != int(value):
        return None
    return int(value)
