"""The few messages of OTLP, encoded and decoded by hand: `google.protobuf` would cost 4 MB and 40 ms of every start.

A field is its number and type, then its value; a nested message is its length, then its fields. So messages are built
by joining bytes, and recurring parts are cached.

Source: Protocol Buffers, "Encoding"; opentelemetry-proto, `trace/v1/trace.proto` (the tests hold this file to it).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from proxy.credentials import cover_shapes

Value = str | bool | int | float | Sequence[str]
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_SIXTY_FOUR: Final = (1 << 64) - 1
_MOST_KEPT: Final = 1024
_LONGEST_KEPT: Final = 128
_SMALL: Final = tuple(bytes((number,)) for number in range(0x80))
_PACK64: Final = Struct("<Q").pack
_PACK32: Final = Struct("<I").pack
_PACK_DOUBLE: Final = Struct("<d").pack
_DOUBLE_FIELD: Final = bytes((4 << 3 | _FIXED64,))


def varint(number: int) -> bytes:
    """Encode an integer; a negative one takes ten bytes."""
    if 0 <= number < 0x80:
        return _SMALL[number]
    number &= _SIXTY_FOUR
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_TAGS: Final = tuple(varint(field << 3 | _BYTES) for field in range(32))
"""The tags of length-delimited fields, by number; OTLP has no higher ones."""


def number(field: int, value: int) -> bytes:
    """Encode a field with an integer, a boolean or an enum value."""
    return varint(field << 3 | _VARINT) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """Encode a field of 64 bits, for example a time in nanoseconds."""
    return varint(field << 3 | _FIXED64) + _PACK64(value)


def fixed32(field: int, value: int) -> bytes:
    """Encode a field of 32 bits."""
    return varint(field << 3 | _FIXED32) + _PACK32(value)


def message(field: int, body: bytes) -> bytes:
    """Encode a field with bytes or a message."""
    size = len(body)
    return _TAGS[field] + (_SMALL[size] if size < 0x80 else varint(size)) + body


def text(field: int, value: str) -> bytes:
    """Encode a field with text. Anything shaped like a key is masked; lone surrogates are replaced."""
    return message(field, cover_shapes(value.encode("utf-8", "replace")))


def attributes(field: int, pairs: Iterable[tuple[str, Value | None]]) -> bytes:
    """Encode attributes, except those whose value is `None`."""
    return b"".join([_attribute(field, key, value) for key, value in pairs if value is not None])


def _attribute(field: int, key: str, value: Value) -> bytes:
    # Ordinary values recur, unique ids (`..id`) do not.
    if type(value) is str and len(value) <= _LONGEST_KEPT and not key.endswith("id"):
        return _kept(field, key, value)
    return message(field, _key(key) + message(2, _any(value)))


@lru_cache(_MOST_KEPT)
def _kept(field: int, key: str, value: str) -> bytes:
    return message(field, _key(key) + message(2, text(1, value)))


@lru_cache(_MOST_KEPT)
def _key(key: str) -> bytes:
    return text(1, key)


def _any(value: Value) -> bytes:
    if isinstance(value, str):
        return text(1, value)
    if isinstance(value, bool):
        return number(2, value)
    if isinstance(value, int):
        return number(3, value)
    if isinstance(value, float):
        return _DOUBLE_FIELD + _PACK_DOUBLE(value)
    return message(5, b"".join([message(1, text(1, one)) for one in value]))


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of a message's fields. Raises ValueError for invalid data."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        size, at = _read_varint(data, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(data):
            raise ValueError("not a message")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _SIXTY_FOUR, at
    raise ValueError("not a message")
