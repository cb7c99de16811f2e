"""The most that a request can use and cost, known before it is sent: the amount to reserve. Pure.

    text in      its JSON in UTF-8: byte-level vocabularies have no token below one byte, and the punctuation of a
                 message, item or tool is longer than the markers that a chat template adds there
    media in     by table, instead of their base64 (`openai.media_bounds`)
    unseen in    `quota.unseen_input_tokens`, once: stored conversations and files, whatever hosted tools read
    text out     the maximum that the request names or its model has, for every choice; near a limit, a stream without
                 a maximum of its own starts with `quota.stream_output_tokens` and grows
    uploads      are streamed: the most expensive model of the endpoint, and the most that its form may request

Everything is priced at the most expensive class that the request may use, so no usage within a bound costs more than
the bound. It can be exceeded by vocabularies that are not byte-level, a provider that ignores the maximum, unseen input
above its setting, audio below 16 kbit/s, or a model in the answer that costs more than the requested one. Such calls
are charged what they used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson

from proxy.config.quota import Quota
from proxy.exchange import Operation, ParsedRequest, Usage
from proxy.nouns.holds import Bound
from proxy.openai import json_steps
from proxy.openai.documents import dump_exact
from proxy.openai.media_bounds import (
    BYTES_PER_SECOND,
    TOKENS_PER_SECOND,
    find_media,
    image_out_tokens,
    is_text_alone,
    is_unseen,
    may_hold_media,
    speech_tokens,
)
from proxy.openai.model_names import base_name
from proxy.openai.output_maximum import choices, model_limit, requested
from proxy.quota.charge import Prices

_MILLION: Final = 1_000_000
_BASE_TOKENS: Final = 32
"""Tokens around the whole input."""
_TOOL_PREAMBLE_TOKENS: Final = 640
"""Additional instructions about tools that Anthropic's models get."""
_SETTINGS: Final = frozenset(
    {"model", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
    | {"stream_options", "stop", "logit_bias", "include", "truncation", "encoding_format"}
)
"""Members of a request that are not model input."""
_READABLE: Final = frozenset({str, list, dict})
_WITH_MAXIMUM: Final = frozenset({"chat.completions.create", "completions.create", "responses.create"})
_UPLOAD_BYTES: Final = 25 * 1024 * 1024
"""The largest recording that OpenAI accepts, for an upload that does not announce its size."""
_ANY_DEPTH: Final = 1024
"""Bodies were held to the limit when they came."""
_PROMPT_TOKENS: Final = 256
"""Above the 224 tokens of its prompt that transcription reads."""
_TRANSCRIBERS: Final = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-4o-mini-transcribe",
    "gpt-transcribe",
)
_IMAGE_MODELS: Final = ("gpt-image-1", "gpt-image-1.5", "gpt-image-2", "dall-e-2")
_MOST_IMAGES: Final = 10
_LEAST: Final = Bound(1, 1, 0, 0, 0, is_capped=True, can_be_capped=False)
"""Of what may cost anything or nothing."""


@dataclass(slots=True)
class _Asked:
    """The parts of one request that its bounds need."""

    make: "Callable[[_Asked, str | None], Bound]"
    operation: Operation
    stream: bool
    prices: Prices
    settings: Quota
    document: Mapping[str, Any]
    """Empty if the body is not JSON or not parsed."""
    tokens: int
    """Of its input, with media counted as if they were text."""
    may_hold_media: bool
    is_more_than_text: bool
    """It requests audio, or refers to content that only the provider knows."""
    has_tools: bool
    choices: int
    maximum: int | None
    """Of one choice, if the request names one."""
    at_first: int
    """What to settle for if it names none."""
    can_be_capped: bool
    predicted: int
    """Tokens of a predicted output: rejected ones are charged in addition to the answer."""


class Bounds:
    """The bounds of one request at any model. Its body is parsed once, when a bound is first needed.

    `content_length`: of the body, `None` if it was not announced. Takes a few us for a small body; one that was too
    large to be kept decoded is decoded again.
    """

    __slots__ = ("_asked", "_content_length", "_operation", "_prices", "_request", "_settings")

    def __init__(
        self, operation: Operation, request: ParsedRequest, content_length: int | None, prices: Prices, settings: Quota
    ) -> None:
        self._operation = operation
        self._request = request
        self._content_length = content_length
        self._prices = prices
        self._settings = settings
        self._asked: _Asked | None = None

    def at(self, model: str | None) -> Bound | None:
        """Return the most that the request may use and cost at a model; `None` if nothing is billable."""
        if not self._operation.billable:
            return None
        asked = self._asked or self.read()
        return asked.make(asked, model)

    def modest_nanos(self, highest: "HighestPrices") -> int | None:
        """Return the most that a modest answer costs at any of many models; `None` if only exact bounds can tell."""
        if not self._operation.billable:
            return None
        asked = self._asked or self.read()
        if asked.make is not _text or asked.may_hold_media or asked.operation.dialect == "completions":
            return None
        if asked.prices is not self._prices:  # another tier, whose prices are not among the highest
            return None
        tokens = asked.tokens + (_TOOL_PREAMBLE_TOKENS if asked.has_tools else 0)
        modest = asked.at_first if asked.maximum is None else asked.maximum
        sent_price, price = highest[asked.is_more_than_text]
        return _nanos(tokens, sent_price) + _nanos((modest + asked.predicted) * asked.choices, price)

    def read(self) -> _Asked:
        """Parse the body now: a large one, which was dropped, in a thread."""
        self._asked = _read(self._operation, self._request, self._prices, self._settings, self._content_length)
        return self._asked

    def let_go(self) -> None:
        """Free what a dropped body was decoded to again; nothing may be asked afterwards."""
        if self._asked is not None and self._request.document is None:
            json_steps.dissolve(self._asked.document)


HighestPrices = tuple[tuple[int, int], tuple[int, int]]
"""The highest prices of many models, as from `Prices.highest_prices`: for text alone, and including media."""


def highest_prices(models: Sequence[str], prices: Prices) -> HighestPrices:
    """Return the highest prices of many models."""
    text, media = ([prices.highest_prices(model, media=is_media) for model in models] for is_media in (False, True))
    return _highest(text), _highest(media)


def bound(
    operation: Operation,
    request: ParsedRequest,
    content_length: int | None,
    prices: Prices,
    settings: Quota,
) -> Bound | None:
    """Return the most that a request may use at the model that it names; `None` if its answer cannot tell usage.

    Of an unknown operation nothing is known: it is admitted as long as anything is left, and charged what it tells.
    """
    if operation.dialect == "none":
        return None
    if not operation.billable and operation.body != "websocket":
        return replace(_LEAST)
    asked = _read(operation, request, prices, settings, content_length)
    made = asked.make(asked, request.model)
    if request.document is None:
        json_steps.dissolve(asked.document)  # decoded for this alone, in a thread
    return made


def _highest(prices: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max((sent for sent, _ in prices), default=0), max((made for _, made in prices), default=0)


def _kind(operation: Operation, size: int) -> "Callable[[_Asked, str | None], Bound]":
    """Return the function that computes the bounds of an operation. `size`: of the body."""
    if operation.body == "websocket":
        return _session
    if operation.dialect == "images":
        return _images
    if operation.name == "audio.speech.create":
        return _speech
    if operation.dialect == "audio":
        return partial(_transcription, size=size)
    return _text


def _text(asked: _Asked, model: str | None) -> Bound:
    """Bound a text answer, or embeddings, which have no output. Routing calls this for every candidate."""
    tokens, has_media = _input(asked, model)
    sent_price, price = asked.prices.highest_prices(model, media=has_media, input_tokens=tokens)
    if asked.operation.dialect == "embeddings":
        return _made(tokens, sent_price, 0, 0)
    count, beside, maximum = asked.choices, asked.predicted, asked.maximum
    if maximum is None:
        maximum, is_named = _maximum(asked, model)
    else:
        is_named = True
    modest = maximum if is_named else min(maximum, asked.at_first)
    return Bound(
        tokens,
        _nanos(tokens, sent_price),
        (maximum + beside) * count,
        price,
        (modest + beside) * count,
        True,
        asked.can_be_capped,
        asked.stream and not is_named,
    )


def _maximum(asked: _Asked, model: str | None) -> tuple[int, bool]:
    """Return the most output tokens of one choice if no member limits them, and whether the endpoint implies that."""
    if asked.operation.dialect == "completions":
        implied = requested(asked.document, "completions", model)
        if implied is not None:
            return implied, True
    limit = model_limit(model)
    return asked.settings.assumed_output_tokens if limit is None else limit, False


def _session(asked: _Asked, model: str | None) -> Bound:
    """Bound the first answer of a websocket; the session grows."""
    settings = asked.settings
    sent_price, price = asked.prices.highest_prices(model, media=True, input_tokens=settings.unseen_input_tokens)
    made = _made(settings.unseen_input_tokens, sent_price, settings.default_output_tokens, price)
    made.is_capped, made.can_grow = False, True
    return made


def _speech(asked: _Asked, model: str | None) -> Bound:
    """Bound synthesized speech."""
    sent_price, price = asked.prices.highest_prices(model, media=True)
    return _made(_input(asked, model)[0], sent_price, speech_tokens(asked.document), price)


def _images(asked: _Asked, model: str | None) -> Bound:
    """Bound generated images, counted in tokens or one by one, depending on the model."""
    document, settings = asked.document, asked.settings
    if not document:
        output = _MOST_IMAGES * image_out_tokens(document)
        return _by_unit(asked, _IMAGE_MODELS, settings.unseen_input_tokens, output, Usage(images=_MOST_IMAGES))
    asked_for, name = document.get("n"), model or _IMAGE_MODELS[0]
    count = asked_for if type(asked_for) is int and asked_for > 0 else 1
    output = 0 if base_name(name).startswith("dall-e") else count * image_out_tokens(document)
    return _by_unit(asked, (name,), _input(asked, model)[0], output, Usage(images=count))


def _transcription(asked: _Asked, model: str | None, size: int) -> Bound:
    """Bound a transcription, counted in tokens or seconds, depending on the model."""
    seconds = size // BYTES_PER_SECOND + 1
    heard = seconds * TOKENS_PER_SECOND
    models = _TRANSCRIBERS if model is None else (model,)
    return _by_unit(asked, models, heard + _PROMPT_TOKENS, heard, Usage(audio_seconds=float(seconds)))


def _by_unit(asked: _Asked, models: Sequence[str], sent: int, output: int, units: Usage) -> Bound:
    """Bound the usage of the most expensive of `models`, in tokens, in `units` or in both."""
    prices = asked.prices
    known = [model for model in models if prices.knows(model)] or models
    each = [(*prices.highest_prices(model, media=True), prices.price(model, units)[0]) for model in known]
    made = _made(sent, 0, output, max(price for _, price, _ in each))
    made.input_nanos = max(_nanos(sent, sent_price) + units_nanos for sent_price, _, units_nanos in each)
    return made


def _made(sent: int, sent_price: int, output: int, price: int) -> Bound:
    """Return the bound of an operation with limited output. Prices: nano-dollars per million tokens."""
    return Bound(sent, _nanos(sent, sent_price), output, price, output, is_capped=True, can_be_capped=False)


def _read(
    operation: Operation, request: ParsedRequest, prices: Prices, settings: Quota, content_length: int | None
) -> _Asked:
    """Parse the body, once for all models. `content_length`: of the body, `None` if it was not announced."""
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
    written = _written(members) if request.body is None else _written_of(members, request.body)
    signs = b"" if is_text_alone(written) else written
    unseen = is_unseen(document, signs)
    prediction = document.get("prediction")
    return _Asked(
        _kind(operation, _UPLOAD_BYTES if content_length is None else content_length),
        operation,
        request.stream,
        prices.at(tier if isinstance(tier := document.get("service_tier"), str) else None),
        settings,
        document,
        tokens + len(written) + (settings.unseen_input_tokens if unseen else 0),
        bool(signs) and may_hold_media(signs),
        unseen or "audio" in document,
        "tools" in document,
        choices(document, operation.dialect),
        requested(document, operation.dialect, None),
        settings.stream_output_tokens if request.stream else settings.default_output_tokens,
        operation.name in _WITH_MAXIMUM and bool(document) and prediction is None,
        0 if prediction is None else len(_written({"prediction": prediction})),
    )


def _input(asked: _Asked, model: str | None) -> tuple[int, bool]:
    """Return the tokens of the input, and whether input or answer may contain anything but text."""
    tokens, is_more = asked.tokens, asked.is_more_than_text
    if asked.may_hold_media:
        media = find_media(asked.document, model)
        tokens, is_more = tokens - media.data_bytes + media.tokens, is_more or media.found
    if asked.has_tools and model is not None and "claude" in model.lower():
        tokens += _TOOL_PREAMBLE_TOKENS
    return tokens, is_more


def _token_ids(value: Any) -> int | None:
    """Return the number of token ids in a list of them, or in a list of such lists; `None` for anything else."""
    if type(value) is not list or not value or type(value[0]) not in (int, list):
        return None
    lists = value if type(value[0]) is list else [value]
    if not all(type(ids) is list and set(map(type, ids)) <= {int} for ids in lists):
        return None
    return sum(map(len, lists))


def _written_of(members: dict[str, Any], body: bytes) -> bytes:
    """Return the `_written` members of `body`, without a call that takes long: 20 ms for 8 MB."""
    return _written(members) if len(body) <= json_steps.LARGE_BYTES else json_steps.dump_in_steps(members, _written)


def _written(value: Any) -> bytes:
    """Return compact JSON, in which every text has at least its UTF-8 length."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or a number beyond 64 bits
        return dump_exact(value)


def _document(request: ParsedRequest) -> Mapping[str, Any]:
    if request.document is not None or request.body is None:
        return request.document or {}
    try:
        document = json_steps.read(request.body, _ANY_DEPTH)
    except ValueError:
        return {}
    return document if type(document) is dict else {}


def _nanos(tokens: int, nanos_per_million: int) -> int:
    return -(-tokens * nanos_per_million // _MILLION)
