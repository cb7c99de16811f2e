"""The JSON body of a request: validation, and the bytes that go upstream.

Rule of the file: we and the provider must read the same. A body that can be read in only one way (no duplicate key in
an object) is passed on as the client's own bytes; any other is re-encoded from what we read, equal as a JSON value,
with the last of duplicate keys. Uniqueness is proven cheaply, in one of three ways: the body is exactly what orjson
would write; or both have the same number of `":` pairs, provided that no escapes could fake one; or every object is
examined. A large body is not written again: its pairs are counted in what was read (`key_counts`).

Failure mode: a body that is not JSON, or beyond the limits, is refused with 400 before much time or memory is spent.

Source: RFC 8259 section 4 (names should be unique); OpenAI's own error text.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.event_loop.fair_threads import give_way
from proxy.openai import json_steps, key_counts, lenient
from proxy.openai.documents import dump_exact, load_exact
from proxy.openai.long_strings import load_parted

_TOGETHER = 1000
_KEY_END = re.compile(rb'"[ \t\r\n]*:')
_BLANK_BEFORE_COLON = (b" :", b"\t:", b"\r:", b"\n:")
_FAKES_KEY_END = re.compile(rb"\\u00(?:2[02]|3[aA])")
"""Escapes of quote, blank and colon: orjson writes them unescaped, so the two counts are not comparable."""


def parse_body(body: bytes, limits: Limits) -> Any:
    """Decode the body of a request within `limits`.

    Raises:
        InvalidRequest: it is not JSON, or has too many elements or levels.
    """
    size, depth = len(body), limits.json_depth
    if size > limits.json_structurals and json_steps.has_more(body, limits.json_structurals):
        raise InvalidRequest(
            f"The JSON body of your request has too many elements: the limit is {limits.json_structurals}.",
            code="json_too_complex",
        )
    try:
        document = json_steps.read(body, depth)
    except ValueError as error:
        raise _unreadable(body, error) from None
    if size > json_steps.LARGE_BYTES:
        may_be_deeper = json_steps.has_more(body, depth, b"{[")
    else:  # every level has a byte at both ends, so most bodies are too short to be too deep (bench/wire_format.py)
        may_be_deeper = size > 2 * depth and body.count(b"{") + body.count(b"[") > depth
    if may_be_deeper and _is_deeper(document, depth):
        raise InvalidRequest(
            f"The JSON body of your request is nested too deeply: the limit is {depth} levels.",
            code="json_too_deep",
        )
    return document


def unambiguous(body: bytes, document: Any) -> bytes:
    """Return `body` if no object in it has a duplicate key, else `document` re-encoded. O(body), usually no copy."""
    if _has_unique_keys(body, document):
        return body
    return edited(body, lambda exact: exact)


def edited(body: bytes, edit: Callable[[Any], Any]) -> bytes:
    """Return what `edit` makes of the value of `body`, which `parse_body` has read: numbers of any size stay."""
    if len(body) <= json_steps.LARGE_BYTES:
        return dump_exact(edit(load_exact(body)))
    exact = _exact(body, load_exact)
    edited = edit(exact)
    written = json_steps.dump_in_steps(edited)
    json_steps.dissolve(exact)
    json_steps.dissolve(edited)
    return written


def _exact(body: bytes, load: Callable[[bytes], Any]) -> Any:
    """Decode a large body with `load_exact`, in parts."""
    read = partial(load_parted, read=load)
    return json_steps.Steps(body, read, json_steps.ANY_DEPTH).load() if json_steps.is_slow(body) else read(body)


def with_option(body: bytes, name: str, option: str) -> bytes:
    """Re-encode the object in `body` with `option` set to true in its member `name`, an object or null."""
    return edited(body, lambda exact: {**exact, name: {**(exact[name] or {}), option: True}})


def with_new_member(body: bytes, member: bytes) -> bytes:
    """Append `member` (`"name":value`) to the object in `body`, which is not empty; every other byte stays in
    place."""
    end = body.rindex(b"}")
    return b"%b,%b%b" % (body[:end], member, body[end:])


def _has_unique_keys(body: bytes, document: Any) -> bool:
    if len(body) > json_steps.LARGE_BYTES:
        return key_counts.are_equal(body, document) or _looked_at_one_by_one(body)
    try:
        written = orjson.dumps(document)
    except TypeError:
        return _looked_at_one_by_one(body)
    if written == body:
        return True
    if _FAKES_KEY_END.search(body) is None and _key_ends(body) == _key_ends(written):
        return True
    return _looked_at_one_by_one(body)


def _key_ends(body: bytes) -> int:
    if any(blank in body for blank in _BLANK_BEFORE_COLON):
        return len(_KEY_END.findall(body))
    return body.count(b'":')


def _looked_at_one_by_one(body: bytes) -> bool:
    unique = True

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal unique
        members = dict(pairs)
        unique = unique and len(members) == len(pairs)
        return members

    read = partial(load_parted, read=partial(load_exact, pairs_hook=note))
    if not json_steps.is_slow(body):
        read(body)
        return unique
    steps = json_steps.Steps(body, read, json_steps.ANY_DEPTH)
    steps.load()
    return unique and not steps.repeats_key


def _is_deeper(document: Any, limit: int) -> bool:
    """Walk level by level: no recursion, and each value is visited once."""
    level = [document]
    for _ in range(limit):
        below: list[Any] = []
        while level:
            give_way()
            some = level[-_TOGETHER:]
            del level[-_TOGETHER:]  # a million are let go of in 12 ms
            below.extend(
                child
                for container in some
                for child in (container.values() if type(container) is dict else container)
                if type(child) is dict or type(child) is list
            )
        if not below:
            return False
        level = below
    return True


def _unreadable(body: bytes, error: ValueError) -> InvalidRequest:
    if lenient.in_utf8(body)[1] != "utf-8":
        reason = "it has to be in UTF-8, without a byte order mark"
    elif isinstance(error, json_steps.Unreadable):
        reason = f"{error.reason.partition(':')[0]} (near byte {error.at})"
    elif isinstance(error, orjson.JSONDecodeError):
        reason = f"{error.msg.partition(':')[0]} (line {error.lineno}, column {error.colno})" if body else "it is empty"
    else:
        reason = "it holds text that is not UTF-8, or a number or a nesting that cannot be read"
    return InvalidRequest(
        "We could not parse the JSON body of your request. "
        f"The API expects a JSON payload, but what was sent was not valid JSON: {reason}.",
        code="invalid_json",
    )
