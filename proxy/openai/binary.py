"""What is no text, judged by its own bytes: files in forms, data URLs, base64. A label proves nothing.

    data:image/png;base64,iVBORw0KGgo...    media: base64 alone, and of bytes that do not begin like text
    data:;base64,QVBJX0tFWT0...             text, as is any base64 that begins like text
    data:;base64, and my key is ...         text: not base64

Rule of the file: the first bytes decide, so that neither a file nor a text has to be read to its end. Only whether a
data URL is base64 alone shows in all of it.

Source: RFC 2397 (data URLs), RFC 4648 section 4.
"""

import binascii
import re
from typing import Final

_SIGNATURES: Final = (
    b"%PDF-", b"PK\x03\x04", b"\x1f\x8b", *(b"BZh%d1AY&SY" % level for level in range(1, 10)), b"\xfd7zXZ",
    b"7z\xbc\xaf", b"Rar!\x1a", b"\x28\xb5\x2f\xfd", b"\x89PNG", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"OggS\0",
    b"ID3\2", b"ID3\3", b"ID3\4", b"fLaC\0", b"\xff\xfb", b"\xff\xf3", b"\x1aE\xdf\xa3",
)  # fmt: skip
"""What known formats begin with, with as much of it as no text begins with."""
_RIFF: Final = b"RIFF"
_RIFF_KINDS: Final = frozenset({b"WAVE", b"WEBP", b"AVI "})
_LONGEST: Final = 12
_HEAD: Final = 512
_CONTROL: Final = bytes(code for code in range(32) if code not in b"\t\n\r\f\x1b")
_READABLE: Final = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
_LOOKED_AT: Final = 40
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_LONGEST_LABEL: Final = 256
_MARK: Final = ";base64,"
_LEAST_MEDIA: Final = 64
"""Fewer characters of base64 are no file: they are scanned as what they are."""
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"
_PIECE: Final = 1 << 18


def begins_as_binary(data: bytes) -> bool:
    """Tell by its beginning whether a file is binary; the beginning of one cut too early may pass for text."""
    head = data[:_HEAD]
    return _is_signed(head) or (len(head) == _HEAD and len(head.translate(None, _CONTROL)) < 0.9 * _HEAD)


def is_undecided(data: bytes) -> bool:
    """Tell whether the few bytes of a file that are there may be those of a known format, so that more are needed."""
    if len(data) >= _LONGEST or _is_signed(data):
        return False
    return data.startswith(_RIFF) or any(begin.startswith(data) for begin in (*_SIGNATURES, _RIFF))


def _is_signed(head: bytes) -> bool:
    if head.startswith(_SIGNATURES) or (head[4:8] == b"ftyp" and head.startswith(b"\0\0")):
        return True
    return head.startswith(_RIFF) and head[8:12] in _RIFF_KINDS


def begins_as_text(data: bytes) -> bool:
    """Tell by its beginning whether a file of any type is text in UTF-8."""
    return bool(data) and not begins_as_binary(data) and b"\0" not in data[:_HEAD] and is_utf8(data[:_HEAD])


def encodes_text(run: bytes) -> bool:
    """Tell by its beginning whether a run of base64, of either alphabet, encodes text."""
    head = run[:_LOOKED_AT].translate(_URL_SAFE, b"=\r\n")
    begin = binascii.a2b_base64(head[: len(head) // 4 * 4])
    if not any(begin[1::2]):  # ASCII in UTF-16
        begin = begin[::2]
    if _READABLE.fullmatch(begin) is None or _is_signed(begin):
        return False
    return begin.isascii() or is_utf8(begin)


def is_utf8(begin: bytes) -> bool:
    """Tell whether bytes are UTF-8; the last character may be incomplete."""
    for cut in range(4):
        try:
            begin[: len(begin) - cut].decode()
        except UnicodeDecodeError:
            continue
        return True
    return False


def is_media(text: str) -> bool:
    """Tell whether a text is a data URL of media, which holds no text. Cost for those: about 1 ns a character."""
    if not text.startswith("data:") or (mark := text.find(_MARK, 0, _LONGEST_LABEL)) < 0:
        return False
    begin = mark + len(_MARK)
    if len(text) - begin < _LEAST_MEDIA or not is_base64(text, begin):
        return False
    return not encodes_text(text[begin : begin + _LOOKED_AT].encode())


def is_base64(text: str, begin: int = 0) -> bool:
    """Tell whether a text is base64 alone from `begin` on, lines of it included; piece by piece, as each keeps the
    interpreter from all else."""
    if not text.isascii():
        return False
    pieces = (text[at : at + _PIECE].encode() for at in range(begin, len(text), _PIECE))
    return not any(piece.translate(None, _BASE64) for piece in pieces)
