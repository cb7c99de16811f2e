"""Reads JSON from clients and providers, whatever it is.

orjson reads nearly everything: strict UTF-8, no NaN, no infinity, at most 1,024 levels. It rejects one thing that real
clients and providers send, a lone surrogate (`"\\ud83d"`, JavaScript's way of cutting an emoji in two); only then the
slower `json` module is used, with the same strictness.

Failure mode: `load` raises ValueError and quotes nothing; `load_object` returns `None`.
Source: RFC 8259 sections 7 and 8.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

MAX_NAME = 256
MAX_NAME_BYTES = 512
"""In UTF-8. PostgreSQL refuses entries of an index above 2,700 bytes, and some hold three names."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

PairsHook = Callable[[list[tuple[str, Any]]], Any]


def load(data: bytes) -> Any:
    """Decode one JSON document. Integers beyond 64 bits become floats.

    Raises:
        ValueError: it is not JSON, not UTF-8, contains NaN or infinity, or is nested too deeply.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if _SURROGATE.search(data) is None:
            raise
    return load_exact(data)


def load_exact(data: bytes, pairs_hook: PairsHook | None = None) -> Any:
    """Decode like `load`, but preserve integers of any size; about ten times as slow.

    `pairs_hook`: called with the members of each object in order, including duplicates.
    Raises:
        ValueError: as for `load`.
    """
    text = data.decode("utf-8")
    try:
        return json.loads(
            text, object_pairs_hook=pairs_hook, parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load_object(data: bytes) -> dict[str, Any] | None:
    """Decode a JSON object; `None` for anything else."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _load_rare_object(data)
    return document if type(document) is dict else None


def _load_rare_object(data: bytes) -> dict[str, Any] | None:
    try:
        document = load(data)
    except ValueError:
        return None
    return document if type(document) is dict else None


def dump_exact(document: Any) -> bytes:
    """Encode the result of `load_exact`: equal as a JSON value, in UTF-8 where possible.

    Raises:
        ValueError: nested too deeply.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode("ascii")


def printable(value: Any) -> str:
    """Return a name or id if it is fit for logs, labels and databases, cut to bounded lengths; otherwise empty.

    Control characters and lone surrogates make it unfit: no real name has them.
    """
    if type(value) is not str or not value.isprintable():
        return ""
    return value[:MAX_NAME] if value.isascii() else value[:MAX_NAME].encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite_float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ValueError("number is infinity when parsed as double")
    return value
