"""Joins, encodes, decodes, measures and searches large texts in pieces: one call for 8 MB would take 3 to 12 ms.

Nothing else gets the interpreter during such a call. The exception is joining bytes: above a megabyte, `bytes.join`
releases the interpreter by itself.

Rule of the file: the result is that of one call, and no call is for more than `PIECE` characters.

Source: CPython 3.11, Objects/stringlib/join.h, `GIL_THRESHOLD`; Objects/unicodeobject.c, `PyUnicode_Append`.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from proxy.event_loop.fair_threads import give_way

PIECE: Final = 1 << 18
"""0.4 ms, in two bytes each."""
_TOGETHER: Final = 256
_Decoder: Final = codecs.getincrementaldecoder("utf-8")


def encoded(text: str, errors: str = "strict") -> bytes:
    """Return `text` in UTF-8.

    Raises:
        UnicodeEncodeError: as `str.encode`.
    """
    if len(text) <= PIECE:
        return text.encode("utf-8", errors)
    return b"".join(_encoded(text, errors))


def decoded(data: bytes, errors: str = "strict") -> str:
    """Return the text that `data` is in UTF-8.

    Raises:
        UnicodeDecodeError: it is none.
    """
    if len(data) <= PIECE:
        return data.decode("utf-8", errors)
    return joined(_decoded(data, errors))


def joined(pieces: Iterable[str]) -> str:
    """Return all of `pieces`, none of them large, as one text.

    It grows in place, as nobody else has it. Only a piece with wider characters than all before it moves the text.
    """
    text, size = "", 0
    some: list[str] = []
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= PIECE:  # where calls are traced, each moves the text
            text += "".join(some)
            some, size = [], 0
    text += "".join(some)
    return text


def joined_by(between: str, texts: Sequence[str]) -> str:
    """Return `between.join(texts)`, whatever the size and number of the texts."""
    return texts[0] if len(texts) == 1 else joined(_in_pieces(between, texts))


def _in_pieces(between: str, texts: Sequence[str]) -> Iterator[str]:
    for at in range(0, len(texts), _TOGETHER):
        give_way()
        some = texts[at : at + _TOGETHER]
        yield between if at else ""
        if sum(map(len, some)) <= PIECE:
            yield between.join(some)
            continue
        for number, text in enumerate(some):
            yield between if number else ""
            for begin in range(0, len(text), PIECE):
                yield text[begin : begin + PIECE]


def cut(data: bytes, at: int, stop: int) -> list[bytes]:
    """Return `data[at:stop]` in pieces."""
    pieces = []
    for begin in range(at, stop, PIECE):
        give_way()
        pieces.append(data[begin : min(begin + PIECE, stop)])
    return pieces


def utf8_len(text: str) -> int:
    """Return the size of `text` in UTF-8; a lone surrogate counts three bytes."""
    return len(text) if text.isascii() else sum(map(len, _encoded(text, "surrogatepass")))


def contains(data: bytes, sign: bytes) -> bool:
    """Tell whether `sign` is in `data`."""
    find = data.find  # `in` takes twice as long (callgrind): it tries the needle as a number first
    if len(data) <= PIECE:
        return find(sign) >= 0
    for at in range(0, len(data), PIECE):
        give_way()
        if find(sign, at, at + PIECE + len(sign) - 1) >= 0:
            return True
    return False


def _decoded(data: bytes, errors: str) -> Iterator[str]:
    decoder = _Decoder(errors)
    for at in range(0, len(data), PIECE):
        give_way()
        yield decoder.decode(data[at : at + PIECE], at + PIECE >= len(data))


def _encoded(text: str, errors: str) -> Iterator[bytes]:
    for at in range(0, len(text), PIECE):
        give_way()
        yield text[at : at + PIECE].encode("utf-8", errors)
