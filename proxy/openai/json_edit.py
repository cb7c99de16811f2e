"""Replaces single values of a JSON document in its own bytes: everything else stays unchanged.

Rule of the file: a value is identified by its path from the root. If an object has a key twice, both values are
replaced, as readers differ in which one they use.

Source: RFC 8259.
"""

import re
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Final

import orjson

from proxy.openai.documents import dump_exact
from proxy.openai.long_strings import behind_string, quoted

Path = tuple[str | int, ...]

_QUOTE: Final = ord('"')

_TOKEN: Final = re.compile(rb'"(?:[^"\\]{1,4096}+|\\.){0,64}+"|"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
"""A string of many pieces is found by its quote alone."""


def edited(data: bytes, values: Mapping[Path, bytes]) -> bytes:
    """Return `data`, a valid document, with other values at some of its paths. Cost O(len(data)), about 10 MB/s.

    `values`: path -> new JSON. A path that does not exist is ignored.
    """
    pieces: list[bytes] = []
    at = 0
    for start, end, value in _spans(data, values):
        if start >= at:
            pieces += (data[at:start], value)
            at = end
    pieces.append(data[at:])
    return b"".join(pieces)


def written(text: str, like: bytes) -> bytes:
    """Return a JSON string, in ASCII if the document that it is for is ASCII."""
    return b"".join(quoted(text, _in_ascii if like.isascii() else dump_exact))


def _in_ascii(text: str) -> bytes:
    return encode_basestring_ascii(text).encode("ascii")


def _spans(data: bytes, values: Mapping[Path, bytes]) -> list[tuple[int, int, bytes]]:
    """Return begin, end and new value of each replacement, in order."""
    found: list[tuple[int, int, bytes]] = []
    open_at: list[tuple[Path, int]] = []
    """Path and begin of the enclosing objects and lists."""
    steps: list[str | int] = []
    key: bytes | None = None
    for start, end in _tokens(data):
        text = data[start:end]
        if text == b":":
            continue
        if text == b",":
            if type(place := steps[-1]) is int:
                steps[-1] = place + 1
            key = None
        elif text in b"}]":
            steps.pop()
            path, begin = open_at.pop()
            if path in values:
                found.append((begin, end, values[path]))
        elif steps and type(steps[-1]) is str and key is None:
            key = text
            steps[-1] = _plain(text)
        else:
            path = tuple(steps)
            if text in b"{[":
                open_at.append((path, start))
                steps.append("" if text == b"{" else 0)
                key = None
            elif path in values:
                found.append((start, end, values[path]))
    return sorted(found)


def _tokens(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each token; a string of megabytes is not read in one call."""
    at, size = 0, len(data)
    while at < size:
        for token in _TOKEN.finditer(data, at):
            start, at = token.span()
            if at - start == 1 and data[start] == _QUOTE:
                at = behind_string(data, start)
                yield start, at
                break
            yield start, at
        else:
            return


def _plain(key: bytes) -> str:
    return str(orjson.loads(key)) if b"\\" in key else key[1:-1].decode()
