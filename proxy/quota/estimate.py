"""The most that a request can use and cost, known before it is sent: what is reserved for it. Pure.

    text in      its JSON in UTF-8: byte-level vocabularies have no token of less than a byte, and the punctuation of
                 a message, item or tool is longer than the marks that a chat template puts there
    media in     by table, in place of their base64 (`openai.media_bounds`)
    unseen in    `quota.unseen_input_tokens`, once: stored conversations and files, whatever hosted tools read
    text out     the maximum that the request names or its model has, for every choice; near a limit, a stream without
                 a maximum of its own begins with `quota.stream_output_tokens` and grows
    uploads      pass by unread: the dearest model that the endpoint takes, and the most that its form may ask for

Everything is priced at the dearest class that the request may use, so the charge of no usage within a bound is higher
than the bound. What can still exceed it: vocabularies that are not byte-level, a provider that goes beyond the maximum
it was given, unseen input above its setting, sound below 16 kbit/s, a model named in the answer that costs more than
the one asked for. Such calls are charged what they used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.config.quota import Quota
from proxy.exchange import Operation, ParsedRequest, Usage
from proxy.holds import Bound
from proxy.openai.documents import dump_exact, load_object
from proxy.openai.media_bounds import (
    BYTES_PER_SECOND,
    TOKENS_PER_SECOND,
    find_media,
    image_out_tokens,
    is_unseen,
    speech_tokens,
)
from proxy.openai.model_names import base_name
from proxy.openai.output_maximum import choices, model_limit, requested
from proxy.quota.charge import Prices

_MILLION: Final = 1_000_000
_BASE_TOKENS: Final = 32
"""What surrounds the whole input."""
_TOOL_PREAMBLE_TOKENS: Final = 640
"""Instructions about tools that Anthropic's models get in addition."""
_SETTINGS: Final = frozenset(
    {"model", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
    | {"stream_options", "stop", "logit_bias", "include", "truncation", "encoding_format"}
)
"""Members of a request that the model does not read."""
_READABLE: Final = frozenset({str, list, dict})
_WITH_MAXIMUM: Final = frozenset({"chat.completions.create", "completions.create", "responses.create"})
_UPLOAD_BYTES: Final = 25 * 1024 * 1024
"""The largest recording that OpenAI takes, for an upload that does not tell its size."""
_PROMPT_TOKENS: Final = 256
"""Above the 224 tokens that transcription reads of its prompt."""
_TRANSCRIBERS: Final = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-4o-mini-transcribe",
    "gpt-transcribe",
)
_IMAGE_MODELS: Final = ("gpt-image-1", "gpt-image-1.5", "gpt-image-2", "dall-e-2")
_MOST_IMAGES: Final = 10


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, as far as its bound needs it."""

    operation: Operation
    document: Mapping[str, Any]
    """Empty where the body is not JSON or not read."""
    model: str | None
    stream: bool
    prices: Prices
    settings: Quota


@dataclass(frozen=True, slots=True)
class _Input:
    tokens: int
    media: bool
    """Not text alone, or not known to be."""


def bound(
    operation: Operation,
    request: ParsedRequest,
    content_length: int | None,
    prices: Prices,
    settings: Quota,
) -> Bound | None:
    """Return the most that a request may use; `None` where nothing is billable.

    `content_length`: of the body, `None` if it was not announced. Cost: a few us for a small body; one that was too
    large to be kept decoded is decoded once more.
    """
    if not operation.billable:
        return None
    asked = _Asked(operation, _document(request), request.model, request.stream, prices, settings)
    if operation.body == "websocket":
        return _session(asked)
    if operation.dialect == "images":
        return _images(asked)
    if operation.name == "audio.speech.create":
        sent_price, price = prices.dearest(request.model, media=True)
        return _made(_input(asked).tokens, sent_price, speech_tokens(asked.document), price)
    if operation.dialect == "audio":
        return _transcription(asked, _UPLOAD_BYTES if content_length is None else content_length)
    return _text(asked)


def _text(asked: _Asked) -> Bound:
    """Bound an answer of text, and embeddings, which have no output."""
    operation, document, settings = asked.operation, asked.document, asked.settings
    sent = _input(asked)
    sent_price, price = asked.prices.dearest(asked.model, media=sent.media or "audio" in document)
    if operation.dialect == "embeddings":
        return _made(sent.tokens, sent_price, 0, 0)
    count = choices(document, operation.dialect)
    maximum, is_named = _maximum(asked)
    at_first = settings.stream_output_tokens if asked.stream else settings.default_output_tokens
    modest = maximum if is_named else min(maximum, at_first)
    beside = _predicted(document)
    return Bound(
        input_tokens=sent.tokens,
        input_nanos=_nanos(sent.tokens, sent_price),
        output_tokens=(maximum + beside) * count,
        output_nanos_per_million=price,
        modest_output_tokens=(modest + beside) * count,
        is_capped=True,
        can_be_capped=operation.name in _WITH_MAXIMUM and bool(document) and document.get("prediction") is None,
        can_grow=asked.stream and not is_named,
    )


def _maximum(asked: _Asked) -> tuple[int, bool]:
    """Return the most output tokens of one choice, and whether the request itself names them."""
    settings = asked.settings
    named = requested(asked.document, asked.operation.dialect, asked.model)
    if named is not None:
        return named, True
    limit = model_limit(asked.model)
    return settings.assumed_output_tokens if limit is None else limit, False


def _predicted(document: Mapping[str, Any]) -> int:
    """Return the tokens of a predicted output: those that were rejected are charged beside the answer."""
    prediction = document.get("prediction")
    return 0 if prediction is None else len(_written({"prediction": prediction}))


def _session(asked: _Asked) -> Bound:
    """Bound the first answer of a websocket; the session grows."""
    settings = asked.settings
    sent_price, price = asked.prices.dearest(asked.model, media=True)
    made = _made(settings.unseen_input_tokens, sent_price, settings.default_output_tokens, price)
    made.is_capped, made.can_grow = False, True
    return made


def _images(asked: _Asked) -> Bound:
    """Bound generated images: counted in tokens or one by one, as the model does."""
    document, settings = asked.document, asked.settings
    if not document:
        output = _MOST_IMAGES * image_out_tokens(document)
        return _by_unit(asked, _IMAGE_MODELS, settings.unseen_input_tokens, output, Usage(images=_MOST_IMAGES))
    asked_for, model = document.get("n"), asked.model or _IMAGE_MODELS[0]
    count = asked_for if type(asked_for) is int and asked_for > 0 else 1
    output = 0 if base_name(model).startswith("dall-e") else count * image_out_tokens(document)
    return _by_unit(asked, (model,), _input(asked).tokens, output, Usage(images=count))


def _transcription(asked: _Asked, size: int) -> Bound:
    """Bound a recording: counted in tokens or in seconds, as the model does."""
    seconds = size // BYTES_PER_SECOND + 1
    heard = seconds * TOKENS_PER_SECOND
    models = _TRANSCRIBERS if asked.model is None else (asked.model,)
    return _by_unit(asked, models, heard + _PROMPT_TOKENS, heard, Usage(audio_seconds=float(seconds)))


def _by_unit(asked: _Asked, models: Sequence[str], sent: int, output: int, units: Usage) -> Bound:
    """Bound what the dearest of `models` may count in tokens, in `units` or in both."""
    prices = asked.prices
    known = [model for model in models if prices.knows(model)] or models
    each = [(*prices.dearest(model, media=True), prices.price(model, units)[0]) for model in known]
    made = _made(sent, 0, output, max(price for _, price, _ in each))
    made.input_nanos = max(_nanos(sent, sent_price) + units_nanos for sent_price, _, units_nanos in each)
    return made


def _made(sent: int, sent_price: int, output: int, price: int) -> Bound:
    """Make the bound of an operation without open end. Prices: nano-dollars per million tokens."""
    return Bound(sent, _nanos(sent, sent_price), output, price, output, is_capped=True, can_be_capped=False)


def _input(asked: _Asked) -> _Input:
    document, model = asked.document, asked.model
    members: dict[str, Any] = {}
    tokens = _BASE_TOKENS
    for name, value in document.items():
        if type(value) not in _READABLE or name in _SETTINGS:
            continue
        if (ids := _token_ids(value)) is None:
            members[name] = value
        else:
            tokens += ids
    written = _written(members)
    media = find_media(document, written, model)
    tokens += len(written) - media.data_bytes + media.tokens
    if "tools" in document and model is not None and "claude" in model.lower():
        tokens += _TOOL_PREAMBLE_TOKENS
    if not is_unseen(document, written):
        return _Input(tokens, media.found)
    return _Input(tokens + asked.settings.unseen_input_tokens, media=True)


def _token_ids(value: Any) -> int | None:
    """Return the number of token ids in a list of them, or in a list of such lists; `None` for anything else."""
    if type(value) is not list or not value or type(value[0]) not in (int, list):
        return None
    lists = value if type(value[0]) is list else [value]
    if not all(type(ids) is list and set(map(type, ids)) <= {int} for ids in lists):
        return None
    return sum(map(len, lists))


def _written(members: Mapping[str, Any]) -> bytes:
    """Return compact JSON, in which no text is shorter than in UTF-8."""
    try:
        return orjson.dumps(members)
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        return dump_exact(members)


def _document(request: ParsedRequest) -> Mapping[str, Any]:
    if request.document is None and request.body is not None:
        return load_object(request.body) or {}
    return request.document or {}


def _nanos(tokens: int, nanos_per_million: int) -> int:
    return -(-tokens * nanos_per_million // _MILLION)
