"""What a request requires of a model: hints in headers, capabilities that it needs, how complex it is.

    x-sidegate-layer        L0 | L1 | L2 | L3: start there
    x-sidegate-quality      low | normal | high | critical
    x-sidegate-cross-check  on | off: a second opinion on the answer, where the project enables them
    x-sidegate-needs        capabilities, such as `vision, reasoning`, in addition to those that the body implies

Rules of the file: pure; a hint with an unknown value is refused, because the request would silently be routed
differently. Needs are derived from the members of the body. Complexity is a sum of points, from a bounded part of the
last message only, so that a decision takes microseconds whatever the size of the request.

Source: OpenAI API reference: chat completions, responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import re2

from proxy.config.layers import CAPABILITIES
from proxy.config.routing import LAYERS, Complexity, Layer
from proxy.errors import InvalidRequest
from proxy.exchange import ParsedRequest
from proxy.nouns.candidates import Complexity as Level

Quality = Literal["low", "normal", "high", "critical"]
_QUALITIES: Final[tuple[Quality, ...]] = get_args(Quality)
_SWITCH: Final = ("on", "off")
_HALF_WINDOW: Final = 2000
_TOKEN_BYTES: Final = 3
"""Lower bound of UTF-8 bytes per token, for all but artificial text; gives an upper bound of the input's tokens."""
_CODE: Final = (
    r"```|\bdef \w+\(|\bclass \w+[:({]|\bfunction\b[^.\n]{0,40}\(|#include\b|\bSELECT\b.{1,80}\bFROM\b|=> ?[{(]|"
    r"Traceback \(most|\bimport \w+|\bpublic (?:static|class)\b|</\w+>|;\n|\bstack ?trace\b|\bregex\b"
)
_REASONING: Final = (
    r"(?i)\b(?:step[- ]by[- ]step|prove|proof|derive|theorem|trade-?offs?|root cause|reason(?:ing)? (?:about|through)|"
    r"analy[sz]e|architect(?:ure)?|optimi[sz]e|refactor|debug|evaluate|compare|design a|plan (?:a|the)|why does)\b"
)
_IMAGE_PARTS: Final = frozenset({"image_url", "input_image"})


@dataclass(frozen=True, slots=True)
class Hints:
    """The hints in the headers."""

    layer: Layer | None = None
    quality: Quality = "normal"
    needs: frozenset[str] = frozenset()
    cross_check: bool | None = None
    """Wanted or not wanted, whatever the complexity; `None`: not specified."""


@dataclass(slots=True)
class Needs:
    """The needs of the body. `tokens`: upper bound of its input, plus the requested output."""

    capabilities: frozenset[str]
    tokens: int
    complexity: Level


_NO_HINTS: Final = Hints()


def _signs() -> tuple[re2.Set, int, int]:
    """Return the set that finds code and reasoning in one pass over a text, and the index of each in it."""
    made = re2.Set.SearchSet()
    code, reasoning = made.Add(_CODE), made.Add(_REASONING)
    made.Compile()
    return made, code, reasoning


_SIGNS, _IS_CODE, _IS_REASONING = _signs()


def read_hints(fields: Mapping[bytes, bytes]) -> Hints:
    """Return the hints in the headers. `fields`: by lower-case name.

    Raises:
        InvalidRequest: a hint has an unknown value.
    """
    layer, quality = fields.get(b"x-sidegate-layer"), fields.get(b"x-sidegate-quality")
    needs, cross_check = fields.get(b"x-sidegate-needs"), fields.get(b"x-sidegate-cross-check")
    if layer is None and quality is None and needs is None and cross_check is None:
        return _NO_HINTS
    named = [name for part in (needs or b"").split(b",") if (name := part.strip().decode("latin-1").lower())]
    for name in named:
        _one_of(name, CAPABILITIES, "X-Sidegate-Needs")
    return Hints(
        None if layer is None else _one_of(layer.strip().decode("latin-1").upper(), LAYERS, "X-Sidegate-Layer"),
        "normal"
        if quality is None
        else _one_of(quality.strip().decode("latin-1").lower(), _QUALITIES, "X-Sidegate-Quality"),
        frozenset(named),
        None
        if cross_check is None
        else _one_of(cross_check.strip().decode("latin-1").lower(), _SWITCH, "X-Sidegate-Cross-Check") == "on",
    )


def read_needs(request: ParsedRequest, settings: Complexity) -> Needs:
    """Return the needs of a text request's body. Takes some 10 us."""
    document = request.document
    if document is None:
        return _unread(request, settings)
    capabilities = set()
    if document.get("tools") or document.get("functions"):
        capabilities.add("tools")
    if _has_schema(document):
        capabilities.add("json_schema")
    if document.get("reasoning_effort") is not None or document.get("reasoning") is not None:
        capabilities.add("reasoning")
    messages = document.get("messages", document.get("input", document.get("prompt")))
    if type(messages) is list and any(map(_has_image, messages)):
        capabilities.add("vision")
    tokens = request.input_text_bytes() // _TOKEN_BYTES + 1
    level = _complexity(_last_text(messages), tokens, "tools" in capabilities, settings)
    return Needs(frozenset(capabilities), tokens + _asked_output(document), level)


def _unread(request: ParsedRequest, settings: Complexity) -> Needs:
    """Judge a body that is too large to be kept decoded by what its bytes may contain; overestimates."""
    body = request.body or b""
    capabilities = {"tools"} if b'"tools"' in body or b'"functions"' in body else set()
    if b"json_schema" in body:
        capabilities.add("json_schema")
    if b"image_url" in body or b"input_image" in body:
        capabilities.add("vision")
    tokens = request.input_text_bytes() // _TOKEN_BYTES + 1
    text = body[-_HALF_WINDOW:].decode("utf-8", "replace")
    return Needs(frozenset(capabilities), tokens, _complexity(text, tokens, "tools" in capabilities, settings))


def _complexity(text: str, tokens: int, has_tools: bool, settings: Complexity) -> Level:
    points = 0
    if tokens > settings.long_input_tokens:
        points += 1
    if tokens > settings.very_long_input_tokens:
        points += 2
    if has_tools:
        points += settings.tools_points
    found = _SIGNS.Match(text.encode("utf-8", "replace")) or ()
    if _IS_CODE in found:
        points += settings.code_points
    if _IS_REASONING in found:
        points += settings.reasoning_points
    if points >= settings.high_points:
        return "high"
    return "medium" if points >= settings.medium_points else "low"


def _has_schema(document: Mapping[str, Any]) -> bool:
    form = document.get("response_format")
    if form is None and type(text := document.get("text")) is dict:
        form = text.get("format")
    return type(form) is dict and form.get("type") == "json_schema"


def _has_image(message: Any) -> bool:
    content = message.get("content") if type(message) is dict else None
    return type(content) is list and any(type(part) is dict and part.get("type") in _IMAGE_PARTS for part in content)


def _last_text(messages: Any) -> str:
    """Return the beginning and the end of the client's last text."""
    if type(messages) is list:
        last = messages[-1] if messages else None
        messages = last.get("content") if type(last) is dict else last
    if type(messages) is list:
        texts = [part["text"] for part in messages if type(part) is dict and type(part.get("text")) is str]
        messages = "\n".join(texts[-4:])
    if type(messages) is not str:
        return ""
    return messages if len(messages) <= 2 * _HALF_WINDOW else messages[:_HALF_WINDOW] + messages[-_HALF_WINDOW:]


def _asked_output(document: Mapping[str, Any]) -> int:
    named = [document.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")]
    return max([value for value in named if type(value) is int and value > 0], default=0)


def _one_of(value: str, known: tuple[Any, ...], header: str) -> Any:
    if value not in known:
        raise InvalidRequest(
            f"The header {header} must be one of {', '.join(known)}.", code="invalid_header", param=header
        )
    return value
