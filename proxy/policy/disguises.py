r"""Undoes encodings of single characters that hide a secret from a pattern but not from the next reader of the text.

    \u0067hp_..., \x67hp_..., \\u0067hp_...    escapes of programs and of JSON, at any depth
    %67hp_...                                  in URLs and forms
    &#103;hp_..., &#x67;hp_...                 in HTML
    ghp_R4nd<soft hyphen>0m...                 invisible characters: from web pages, documents and chats

People do not write letters and digits in such a way, but some serializers do, and copied texts contain invisible
characters. The rules describe ordinary text; escapes next to a token (`\n`, `%3D`) they know themselves.

Rule of the file: ASCII only, as secrets are. Cost: a few `find` calls for a text without any of these; for others a
pass of 5 ns per character, and 1 us for each disguised one.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from proxy.event_loop.fair_threads import give_way
from proxy.policy.patience import Patience

_INVISIBLE: Final = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_UNRESERVED: Final = "2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe]"
"""Letters, digits and `-._~`, which no URL has to encode (RFC 3986 section 2.3)."""
_ASCII: Final = "[2-7][0-9A-Fa-f]"
_WRITTEN: Final = (
    ("\\", re.compile(rf"\\(?:u00|x){_ASCII}")),
    ("%", re.compile(f"%(?:{_UNRESERVED})")),
    ("&", re.compile("&#[0-9x]")),
)
"""The first character of each kind, which is looked for at once, and what has to follow it."""
_DISGUISE: Final = re.compile(
    rf"\\u00({_ASCII})|\\x({_ASCII})|%({_UNRESERVED})|&#x({_ASCII});|&#([3-9][0-9]|1[01][0-9]|12[0-6]);|"
    + "|".join(_INVISIBLE)
)
"""Every alternative begins with a character of its own, so that the engine skips all others. Backslashes before an
escape are not in it: there may be a million of them."""
_DECIMAL: Final = 5
"""The group of an alternative that is not hexadecimal."""
_CHECKED: Final = 1000
_PIECE: Final = 1 << 18
_SEARCHED: Final = 1 << 16
"""The same for a search that may look at every character."""
_LONGEST: Final = 8
"""More characters than what is looked for."""


class Plain:
    """A text without its disguises."""

    __slots__ = ("_begins", "_origins", "text")

    def __init__(self, text: str, begins: list[int], origins: list[int]) -> None:
        """`begins`: where a part of `text` begins, in order; `origins`: the same in the original."""
        self.text = text
        self._begins = begins
        self._origins = origins

    def origin(self, place: int) -> int:
        """Return where a character of `text` begins in the original; for its end, where the original ends."""
        part = bisect_right(self._begins, place) - 1
        return self._origins[part] + place - self._begins[part]


def may_hold(text: str) -> bool:
    """Tell whether a text may have disguises, at the cost of some looks for single characters; piece by piece, as each
    look keeps the interpreter."""
    if len(text) <= _PIECE:
        return _may_hold(text)
    return any(_may_hold(text[at : at + _PIECE + _LONGEST]) for at in range(0, len(text), _PIECE))


def _may_hold(text: str) -> bool:
    for first, whole in _WRITTEN:
        if first in text and whole.search(text):
            return True
    return not text.isascii() and any(character in text for character in _INVISIBLE)


def undone(text: str, patience: Patience | None = None) -> Plain | None:
    """Return a text without its disguises; `None` if it has none. Raises TooSlow."""
    pieces: list[str] = []
    begins, origins = [0], [0]
    at = size = 0
    for number, found in enumerate(_found(text), 1):
        if number % _CHECKED == 0:
            give_way()
            if patience is not None:
                patience.check()
        start, end = found.span()
        while start > at and text[start - 1] == text[start] == "\\":  # an escape of an escape
            start -= 1
        if found.lastindex is None and not _stands_in_token(text, start, end):
            continue
        pieces.append(text[at:start])
        size += start - at
        if found.lastindex is not None:
            begins.append(size)
            origins.append(start)
            pieces.append(chr(int(found[found.lastindex], 10 if found.lastindex == _DECIMAL else 16)))
            size += 1
        begins.append(size)
        origins.append(end)
        at = end
    if not at:
        return None
    pieces.append(text[at:])
    return Plain("".join(pieces), begins, origins)


def _found(text: str) -> Iterator[re.Match[str]]:
    """Yield what looks like a disguise; piece by piece, as a million backslashes keep the interpreter for 30 ms."""
    at = 0
    while at < len(text):
        give_way()
        stop = at + _SEARCHED
        for found in _DISGUISE.finditer(text, at, stop + _LONGEST):
            if found.start() >= stop:
                break
            yield found
            at = found.end()
        at = max(at, stop)


def _stands_in_token(text: str, start: int, end: int) -> bool:
    """Tell whether an invisible character has visible ASCII on both sides, or others like it in between."""
    return _is_visible(text[start - 1 : start]) and _is_visible(text[end : end + 1])


def _is_visible(character: str) -> bool:
    return "!" <= character <= "~" or character in _INVISIBLE
