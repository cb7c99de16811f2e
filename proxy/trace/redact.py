"""Content capture in mode `redacted`: keeps the structure of a body without its text.

Kept: keys, nesting, single numbers, booleans, and short identifiers below the keys of an allow-list (role, type,
model ...). Every other text becomes `[n characters]`. Lists of numbers are dropped too: token ids, log-probability
bytes and embeddings can be turned back into text. Streams are processed line by line. Failure mode: of anything that
cannot be parsed (including a body cut at the capture limit, or a compressed one), and of what has thousands of members,
only the size is kept: it is redacted on the event loop, and 64 KB of nothing but brackets took 50 ms.

Rule of the file: no I/O; a text is kept only if its key is listed here.

Source: OpenAI API reference (names of structural members); WHATWG HTML section 9.2 (event streams).
"""

import re
from typing import Any

import orjson

_STRUCTURAL = frozenset(
    {
        "call_id",
        "created",
        "encoding_format",
        "finish_reason",
        "format",
        "id",
        "item_id",
        "model",
        "name",
        "object",
        "previous_response_id",
        "quality",
        "reasoning_effort",
        "response_format",
        "response_id",
        "role",
        "service_tier",
        "size",
        "status",
        "system_fingerprint",
        "tool_call_id",
        "tool_choice",
        "truncation",
        "type",
        "voice",
    }
)
_OPAQUE = frozenset({"arguments", "input_schema", "metadata", "variables"})
"""Below these keys the names are chosen by the caller, so the allow-list does not apply."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/@+-]{1,128}")
_MAX_KEY = 64
_MAX_DEPTH = 96
_MOST_MEMBERS = 8192
"""64 KB of messages have less than half as many."""
_BEFORE_MEMBERS = b",[{\n"
_EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def redact(document: bytes, content_type: str = "") -> bytes:
    """Return `document` without its texts: JSON as JSON, an event stream as one, anything else as `[n bytes]`.

    `content_type` may be empty: then the first bytes decide.
    """
    if not document:
        return document
    if sum(document.count(sign) for sign in _BEFORE_MEMBERS) > _MOST_MEMBERS:
        return size_of(document)
    if content_type.startswith("text/event-stream") or (not content_type and document.startswith(_EVENT_FIELDS)):
        return b"\n".join(_event_line(line) for line in document.splitlines()) + b"\n"
    return _json(document)


def _event_line(line: bytes) -> bytes:
    name, colon, value = line.partition(b":")
    value = value.removeprefix(b" ")
    if not colon or name not in (b"data", b"event", b"id", b"retry"):
        return size_of(line) if line else line
    if name == b"data" and value != b"[DONE]":
        return b"data: " + _json(value)
    if value == b"[DONE]" or _IDENTIFIER.fullmatch(value.decode("latin-1")):
        return name + b": " + value
    return name + b": " + size_of(value)


def _json(document: bytes) -> bytes:
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError:
        return size_of(document)
    return orjson.dumps(_value(parsed, None, 0), option=orjson.OPT_NON_STR_KEYS)


def _value(value: Any, key: str | None, depth: int) -> Any:
    """Return `value` redacted. `key`: the name of its member, `None` if texts are never kept there."""
    if isinstance(value, str):
        return value if key in _STRUCTURAL and _IDENTIFIER.fullmatch(value) else f"[{len(value)} characters]"
    if depth >= _MAX_DEPTH and isinstance(value, dict | list):
        return f"[{len(value)} members]"
    if isinstance(value, dict):
        return _members(value, key, depth)
    if isinstance(value, list):
        if value and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
            return f"[{len(value)} numbers]"
        return [_value(item, key, depth + 1) for item in value]
    return value


def _members(value: dict[str, Any], key: str | None, depth: int) -> dict[str, Any]:
    opaque = key in _OPAQUE
    return {
        name if len(name) <= _MAX_KEY else f"[{len(name)} characters]": _value(item, key if opaque else name, depth + 1)
        for name, item in value.items()
    }


def size_of(data: bytes) -> bytes:
    """Return the replacement of a body of which only the size is kept."""
    return b"[%d bytes]" % len(data)
