"""JSON with strings of megabytes, decoded and encoded without a call that takes long.

A decoder reads a string in one call, in which nothing else of the interpreter runs: 20 ms for 8 MB. So long strings are
taken out, decoded in pieces, and put back in:

    {"messages":[{"content":"...8 MB..."}]}   ->   {"messages":[{"content":"<mark>"}]}   +   "..." "..." "..."

Rule of the file: the same value as read at once, and the same error, which is found by reading it at once.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

from proxy.event_loop.fair_threads import give_way
from proxy.openai.documents import load
from proxy.openai.pieces import joined

LONG_BYTES: Final = 1 << 18
"""A shorter string is decoded within a millisecond."""
MOST_BYTES: Final = 1 << 20
"""What has few elements and no long string is decoded within 3 ms."""
_PIECE: Final = 1 << 17
_WINDOW: Final = 1 << 16
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_KEY_END: Final = re.compile(rb"[ \t\r\n]*:")
_UNESCAPED: Final = 16
"""Without a backslash in so many bytes no escape is open."""
_BACKSLASH: Final = ord("\\")
_SECOND_HALF: Final = re.compile(rb"\\u[dD][c-fC-F]")
"""Of a pair of escapes that is one character."""
_ESCAPE_BYTES: Final = 6
_ESCAPED: Final = re.compile(rb"(?:[^\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+", re.DOTALL)
_NEAR: Final = 64
"""So many places are tried one by one."""
_CONTINUES: Final = 0xC0, 0x80
"""Mask and value of the bytes inside a character."""


def load_parted(body: bytes, read: Callable[[bytes], Any] = load) -> Any:
    """Decode one JSON document as `read` does. Raises ValueError."""
    if len(body) <= LONG_BYTES or not (spans := [*_long_strings(body)]):
        return read(body)
    name, at = secrets.token_hex(8), 0
    kept: list[bytes] = []
    texts: dict[str, str] = {}
    try:
        for number, (start, end) in enumerate(spans):
            mark = f"{name}-{number}"
            kept += (body[at:start], mark.encode())
            texts[mark], at = _decoded(body, start, end), end
        return _put_in(read(b"".join([*kept, body[at:]])), texts)
    except ValueError:
        return read(body)


def is_long_beside_strings(body: bytes) -> bool:
    """Tell whether `body` is long without the strings that `load_parted` takes out."""
    return len(body) > MOST_BYTES and len(body) - sum(end - at for at, end in _long_strings(body)) > MOST_BYTES


def quoted(text: str, quote: Callable[[str], bytes]) -> Iterator[bytes]:
    """Yield the JSON string of a text; one of megabytes in pieces, as all at once keeps the interpreter for 45 ms.

    `quote`: makes a JSON string, character by character.
    """
    if len(text) <= _WINDOW:
        yield quote(text)
        return
    yield b'"'
    for at in range(0, len(text), _WINDOW):
        give_way()
        yield quote(text[at : at + _WINDOW])[1:-1]
    yield b'"'


def behind_string(body: bytes, at: int) -> int:
    """Return where the string that begins at `at` has ended: one of megabytes at the speed of a copy."""
    size, at = len(body), at + 1
    while at < size:
        give_way()
        window = body[at : at + _WINDOW].replace(b"\\\\", b"..").replace(b'\\"', b"..")
        if (end := window.find(b'"')) >= 0:
            return at + end + 1
        at += max(len(window) - window.endswith(b"\\"), 1)
    return size


def _long_strings(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the content of long strings begins and ends; keys are left in."""
    at = 0
    while (quote := body.find(b'"', at)) >= 0:
        give_way()
        short = _STRING.match(body, quote, quote + _WINDOW)
        at = behind_string(body, quote) if short is None else short.end()
        if at - quote > LONG_BYTES and not _KEY_END.match(body, at):
            yield quote + 1, at - 1


def _decoded(body: bytes, at: int, end: int) -> str:
    """Return the text of the string between two places."""
    pieces: list[str] = []
    while at < end:
        give_way()
        stop = _cut(body, at, min(at + _PIECE, end), end)
        pieces.append(load(b'"%b"' % body[at:stop]))
        at = stop
    return joined(pieces)


def _cut(body: bytes, at: int, near: int, end: int) -> int:
    """Return a place from which on the string can be decoded by itself, not before `near` if it is the end."""
    if near == end:
        return end
    mask, value = _CONTINUES
    for stop in range(near, max(at, near - _NEAR), -1):
        if body[stop] & mask != value and body.find(b"\\", max(stop - _UNESCAPED, 0), stop) < 0:
            return stop
        begins_escape = body[stop] == _BACKSLASH and body[stop - 1] != _BACKSLASH
        if begins_escape and not _SECOND_HALF.match(body, stop):
            return stop
    return _behind_escapes(body, at, near) or end


def _behind_escapes(body: bytes, at: int, near: int) -> int:
    """Return the last such place up to `near`, or a few bytes behind, in what is full of escapes; 0 without one."""
    whole = _ESCAPED.match(body, at, near)
    stop = whole.end() if whole else at
    if _SECOND_HALF.match(body, stop):
        stop += _ESCAPE_BYTES
    mask, value = _CONTINUES
    while stop > at and body[stop] & mask == value:
        stop -= 1
    return stop if stop > at else 0


def _put_in(document: Any, texts: dict[str, str]) -> Any:
    """Return the document with the texts in place of their marks."""
    if type(document) is str:
        return texts.get(document, document)
    stack = [document]
    while stack:
        item = stack.pop()
        for step, value in item.items() if type(item) is dict else enumerate(item):
            if type(value) is str:
                if value in texts:
                    item[step] = texts[value]
            elif type(value) is dict or type(value) is list:
                stack.append(value)
    return document
