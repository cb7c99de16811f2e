"""Single values in storable form: bounded text, milliseconds, exact dollars, and JSON that PostgreSQL accepts.

jsonb refuses NUL and lone surrogates, BIGINT refuses more than 63 bits, and one such row would block its whole batch.
So `encode` replaces them, at a cost only where orjson or a search for NUL finds one.

Source: PostgreSQL "JSON Types"; RFC 8259 section 8.2.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from proxy.credentials import cover, cover_shapes

NAME = 256
"""Longest name or id from a client or provider, in characters."""
TEXT = 1024
"""Longest text: messages of errors and paths."""
MAX_BIGINT = 2**63 - 1
"""The largest integer of a column."""


def bounded(text: str | None, limit: int) -> str | None:
    """Return at most `limit` characters of `text`."""
    return text[:limit] if text else text


def milliseconds(seconds: float) -> float:
    """Return whole microseconds as milliseconds."""
    # A quarter of the cost of round(), which alone took a tenth of `record.final` (timeit); int() is a call, too.
    return (seconds * 1_000_000.0 + 0.5) // 1.0 / 1000.0


@lru_cache(64)
def dollars(nanos: int) -> str:
    """Return integer nano-dollars as a decimal number of dollars with 9 digits.

    Cached, as a request usually costs what its only call does.
    """
    digits = str(nanos).zfill(10)
    return f"{digits[:-9]}.{digits[-9:]}"


def encode(document: Mapping[str, Any]) -> bytes:
    """Return `document` as JSON that PostgreSQL can store; the slow path is taken only if needed."""
    try:
        body = orjson.dumps(document, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:
        return orjson.dumps(_storable(document))
    # 0x5C is the backslash: most records have none, and a single byte is found ten times as fast as six (timeit).
    return orjson.dumps(_storable(document)) if 0x5C in body and b"\\u0000" in body else body


def written(document: Mapping[str, Any], secrets: tuple[bytes, ...]) -> bytes:
    """Return the same without credentials."""
    return cover_shapes(cover(encode(document), secrets))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        # UTF-16 turns a pair of surrogates back into one character; a lone one becomes U+FFFD.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, MAX_BIGINT), -MAX_BIGINT)
    return value
