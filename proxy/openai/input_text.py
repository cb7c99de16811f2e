"""How much text of a request the model reads: the basis of estimates.

Counted are the strings of the members below, at any depth, in UTF-8; definitions of tools and formats count as JSON.
Token ids count four bytes each, the average of a vocabulary. Images, audio and files count a fixed size per part, never
the length of their base64.

Cost: O(strings), without recursion; about 0.4 us per message. So it is computed on demand, and `text_bound` avoids it
if possible.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.event_loop.fair_threads import give_way
from proxy.exchange import ParsedRequest
from proxy.openai.estimate import BYTES_PER_TOKEN
from proxy.openai.pieces import utf8_len

MEDIA_PART_BYTES = 765 * BYTES_PER_TOKEN
"""One image, audio or file: 765 tokens is what OpenAI bills for a 1024 x 1024 image in high detail."""

_PROSE = frozenset({"messages", "input", "prompt", "instructions", "suffix", "prediction", "query", "documents"})
_DEFINITIONS = frozenset({"tools", "functions", "response_format", "text"})
_SILENT = frozenset({"type", "id", "call_id", "tool_call_id", "status", "detail", "format"})
"""Members of messages and items that the model does not read as text."""
_MEDIA = frozenset(
    {"image_url", "input_image", "image", "input_audio", "audio", "file", "input_file", "computer_screenshot"}
)
_SMALL_BODY_BYTES = 8192
_AT_ONCE = 1000


def input_text_bytes(document: Mapping[str, Any]) -> int:
    """Return the UTF-8 bytes of everything in a request body that the model reads."""
    total = 0
    for name, value in document.items():
        if name in _PROSE:
            total += _prose_bytes(value)
        elif value and name in _DEFINITIONS:
            total += _definition_bytes(value)
    return total


def text_bound(request: ParsedRequest) -> int:
    """Return the bytes of text in a request or, if that saves counting them, a slightly higher bound: the body's size.

    Media parts, which count more than their own length, are in a list inside the list of messages: a body with a single
    list has none. A larger body may be mostly a data URL and is counted.
    """
    body = request.body
    if body is None or request.document is None:
        return request.input_text_bytes()
    plain = len(body) <= _SMALL_BODY_BYTES and body.find(b"[") == body.rfind(b"[")
    return len(body) if plain else request.input_text_bytes()


def _definition_bytes(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:
        return _prose_bytes(value)


def _prose_bytes(value: Any) -> int:
    total = looked = 0
    stack = [value]
    while stack:
        item = stack.pop()
        looked += 1
        if looked % _AT_ONCE == 0:
            give_way()
        kind = type(item)
        if kind is str:
            total += len(item) if item[:5] != "data:" and item.isascii() else _string_bytes(item)
        elif kind is dict:
            part = item.get("type")
            if type(part) is str and part in _MEDIA:
                total += MEDIA_PART_BYTES
            else:
                for name, child in item.items():
                    if name not in _SILENT:
                        stack.append(child)
        elif kind is list:
            if _is_token_ids(item):
                total += BYTES_PER_TOKEN * len(item)
            else:
                stack += item
    return total


def _string_bytes(text: str) -> int:
    if text.startswith("data:") and ";base64," in text[:256]:
        return MEDIA_PART_BYTES
    return utf8_len(text)


def _is_token_ids(items: list[Any]) -> bool:
    return bool(items) and type(items[0]) is int and set(map(type, items)) == {int}
