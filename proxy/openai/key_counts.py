"""Proves that no object of a large document has a duplicate key, without encoding the document again; in short steps.

Each key ends in a quote and a colon, and the decoded document has only the last of duplicate keys. So a body has no
duplicates if it contains exactly as many `":` as the document has keys, plus those inside its texts.

Rule of the file: no call looks at more than `_PIECE` bytes, as nothing else gets the interpreter during a call.
"""

import re
from collections.abc import Iterator
from typing import Any, AnyStr, Final

from proxy.event_loop.fair_threads import give_way

_PIECE: Final = 1 << 18
_LOOKED: Final = 500
_FAKED: Final = re.compile(rb"\\u00(?:2[02]|3[aA])")
"""Escapes of quote, blank and colon: such a pair is in the text and not in the body."""
_BLANK: Final = re.compile(rb'"[ \t\r\n]+:')
_BLANK_IN_TEXT: Final = re.compile('" +:')
"""A text has no other blanks that are not escaped in a body."""
_HOLD_TEXT: Final = frozenset((str, dict, list))
_BEGIN: Final = frozenset(" :")
_APART: Final = re.compile(rb"[^ \t\r\n:]|(?<=:)")
"""Before what is neither blank nor colon, and behind a colon, no pair goes on."""
_APART_IN_TEXT: Final = re.compile("[^ :]|(?<=:)")


def are_equal(body: bytes, document: Any) -> bool:
    """Tell whether `body` has as many keys as `document`, to which it was decoded. False also if that is not sure."""
    in_body = sum(piece.count(b'":') + len(_BLANK.findall(piece)) for piece in _pieces(body, _APART))
    return in_body == _in_document(document) and not _is_faked(body)


def _is_faked(body: bytes) -> bool:
    for at in range(0, len(body), _PIECE):
        give_way()
        if _FAKED.search(body, at, at + _PIECE + 6):
            return True
    return False


def _in_document(document: Any) -> int:
    count, looked, stack = 0, 0, [document]
    while stack:
        item = stack.pop()
        kind = type(item)
        looked += 1
        if looked % _LOOKED == 0:
            give_way()
        if kind is str:
            count += _in_text(item)
        elif kind is list:
            stack.extend(each for each in item if type(each) in _HOLD_TEXT)  # no copy: a million are freed for 12 ms
        elif kind is dict:
            count += len(item)
            for key, value in item.items():
                count += _in_text(key)
                if type(value) is str:
                    count += _in_text(value)
                elif type(value) is dict or type(value) is list:
                    stack.append(value)
    return count


def _in_text(text: str) -> int:
    """Count the pairs of a text and of the quote before it."""
    first = text[:1] in _BEGIN and text.lstrip(" ").startswith(":")
    if len(text) <= _PIECE and '"' not in text:
        return first
    pieces = _pieces(text, _APART_IN_TEXT)
    return first + sum(piece.count('":') + len(_BLANK_IN_TEXT.findall(piece)) for piece in pieces)


def _pieces(text: AnyStr, apart: re.Pattern[AnyStr]) -> Iterator[AnyStr]:
    """Yield `text` in pieces that end where no pair does. `apart`: finds what is in none."""
    at, size = 0, len(text)
    while at < size:
        give_way()
        found = apart.search(text, at + _PIECE)
        stop = size if found is None else found.start()
        yield text[at:stop]
        at = stop
