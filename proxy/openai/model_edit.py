"""Replaces a request's model: the value of its member `model`, and no other byte, wherever that is provably right.

A key is `"model"` and a colon. In valid JSON such bytes are a key unless the first quote is escaped. So if the object
is known to have a model, there is exactly one such key, and no escape could spell another, that is the one. Any other
body is re-encoded from what was read, equal as a JSON value except for the model.

Source: RFC 8259 sections 4 and 7.
"""

import re
from typing import Final

import orjson

from proxy.openai.documents import dump_exact, load_exact

_KEY: Final = re.compile(rb'(?<!\\)"model"[ \t\r\n]*:')
_MODEL: Final = re.compile(rb'(?<!\\)"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_ESCAPED_LETTER: Final = b"\\u00"
_OPTIONS: Final = "stream_options"


def with_model(body: bytes, model: str, *, has_model: bool) -> bytes:
    """Return the JSON object in `body` with `model` as its model. `has_model`: it has that member, with a text.

    Cost: usually two searches and a copy; else O(body) in Python.
    """
    if has_model and _ESCAPED_LETTER not in body and len(_KEY.findall(body)) == 1:
        if (found := _MODEL.search(body)) is not None:
            start, end = found.span(1)
            return b"%b%b%b" % (body[:start], orjson.dumps(model), body[end:])
    document = load_exact(body)
    document["model"] = model
    return dump_exact(document)


def without_usage_option(body: bytes) -> bytes:
    """Return the body of a stream without `stream_options.include_usage`, for a provider that refuses it."""
    document = load_exact(body)
    options = {name: value for name, value in (document.pop(_OPTIONS, None) or {}).items() if name != "include_usage"}
    if options:
        document[_OPTIONS] = options
    return dump_exact(document)
