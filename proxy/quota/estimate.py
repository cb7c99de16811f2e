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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    may_hold_media,
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


@dataclass(slots=True)
class _Asked:
    """One request at one model, as far as its bound needs it."""

    operation: Operation
    document: Mapping[str, Any]
    model: str | None
    stream: bool
    prices: Prices
    settings: Quota
    read: "_Read"


@dataclass(slots=True)
class _Read:
    """What the input is for every model."""

    document: Mapping[str, Any]
    """Empty where the body is not JSON or not read."""
    tokens: int
    """Of text, if what may be media were text too."""
    may_hold_media: bool
    is_unseen: bool
    choices: int
    maximum: int | None
    """Of one choice, as the request names it."""
    predicted: int
    """Tokens of a predicted output: those that were rejected are charged beside the answer."""


BoundOf = Callable[[str | None], Bound | None]
"""Return the most that a request may use and cost at a model; `None` if nothing is billable."""


def bound(
    operation: Operation,
    request: ParsedRequest,
    content_length: int | None,
    prices: Prices,
    settings: Quota,
) -> Bound | None:
    """Return the most that a request may use at the model that it names; `None` where nothing is billable.

    `content_length`: of the body, `None` if it was not announced. Cost: a few us for a small body; one that was too
    large to be kept decoded is decoded once more.
    """
    return bounds(operation, request, content_length, prices, settings)(request.model)


def bounds(
    operation: Operation,
    request: ParsedRequest,
    content_length: int | None,
    prices: Prices,
    settings: Quota,
) -> BoundOf:
    """Return what bounds a request at any model. Its body is read once, when a bound is first asked for."""
    if not operation.billable:
        return _nothing
    make = _kind(operation, _UPLOAD_BYTES if content_length is None else content_length)
    read: _Read | None = None

    def bound_at(model: str | None) -> Bound:
        nonlocal read
        if read is None:
            read = _read(operation, request)
        return make(_Asked(operation, read.document, model, request.stream, prices, settings, read))

    return bound_at


def _kind(operation: Operation, size: int) -> "Callable[[_Asked], Bound]":
    """Return what makes the bounds of an operation. `size`: of the body."""
    if operation.body == "websocket":
        return _session
    if operation.dialect == "images":
        return _images
    if operation.name == "audio.speech.create":
        return _speech
    if operation.dialect == "audio":
        return partial(_transcription, size=size)
    return _text


def _nothing(_model: str | None) -> None:
    return None


def _text(asked: _Asked) -> Bound:
    """Bound an answer of text, and embeddings, which have no output."""
    operation, document, settings = asked.operation, asked.document, asked.settings
    tokens, has_media = _input(asked)
    sent_price, price = asked.prices.dearest(asked.model, media=has_media or "audio" in document)
    if operation.dialect == "embeddings":
        return _made(tokens, sent_price, 0, 0)
    count, beside = asked.read.choices, asked.read.predicted
    maximum, is_named = _maximum(asked)
    at_first = settings.stream_output_tokens if asked.stream else settings.default_output_tokens
    modest = maximum if is_named else min(maximum, at_first)
    return Bound(
        input_tokens=tokens,
        input_nanos=_nanos(tokens, sent_price),
        output_tokens=(maximum + beside) * count,
        output_nanos_per_million=price,
        modest_output_tokens=(modest + beside) * count,
        is_capped=True,
        can_be_capped=operation.name in _WITH_MAXIMUM and bool(document) and document.get("prediction") is None,
        can_grow=asked.stream and not is_named,
    )


def _maximum(asked: _Asked) -> tuple[int, bool]:
    """Return the most output tokens of one choice, and whether the request itself names them."""
    settings, named, dialect = asked.settings, asked.read.maximum, asked.operation.dialect
    if named is None and dialect == "completions":
        named = requested(asked.document, dialect, asked.model)
    if named is not None:
        return named, True
    limit = model_limit(asked.model)
    return settings.assumed_output_tokens if limit is None else limit, False


def _session(asked: _Asked) -> Bound:
    """Bound the first answer of a websocket; the session grows."""
    settings = asked.settings
    sent_price, price = asked.prices.dearest(asked.model, media=True)
    made = _made(settings.unseen_input_tokens, sent_price, settings.default_output_tokens, price)
    made.is_capped, made.can_grow = False, True
    return made


def _speech(asked: _Asked) -> Bound:
    """Bound a text read aloud."""
    sent_price, price = asked.prices.dearest(asked.model, media=True)
    return _made(_input(asked)[0], sent_price, speech_tokens(asked.document), price)


def _images(asked: _Asked) -> Bound:
    """Bound generated images: counted in tokens or one by one, as the model does."""
    document, settings = asked.document, asked.settings
    if not document:
        output = _MOST_IMAGES * image_out_tokens(document)
        return _by_unit(asked, _IMAGE_MODELS, settings.unseen_input_tokens, output, Usage(images=_MOST_IMAGES))
    asked_for, model = document.get("n"), asked.model or _IMAGE_MODELS[0]
    count = asked_for if type(asked_for) is int and asked_for > 0 else 1
    output = 0 if base_name(model).startswith("dall-e") else count * image_out_tokens(document)
    return _by_unit(asked, (model,), _input(asked)[0], output, Usage(images=count))


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


def _read(operation: Operation, request: ParsedRequest) -> _Read:
    document = _document(request)
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
    prediction = document.get("prediction")
    return _Read(
        document,
        tokens=tokens + len(written),
        may_hold_media=may_hold_media(written),
        is_unseen=is_unseen(document, written),
        choices=choices(document, operation.dialect),
        maximum=requested(document, operation.dialect, None),
        predicted=0 if prediction is None else len(_written({"prediction": prediction})),
    )


def _input(asked: _Asked) -> tuple[int, bool]:
    """Return the tokens of the input, and whether it is not text alone, or not known to be."""
    document, model, read = asked.document, asked.model, asked.read
    tokens, has_media = read.tokens, False
    if read.may_hold_media:
        media = find_media(document, model)
        tokens, has_media = tokens - media.data_bytes + media.tokens, media.found
    if "tools" in document and model is not None and "claude" in model.lower():
        tokens += _TOOL_PREAMBLE_TOKENS
    if not read.is_unseen:
        return tokens, has_media
    return tokens + asked.settings.unseen_input_tokens, True


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
