"""Reads JSON that is not valid by the letter but that clients read all the same: whoever scans it has to read it, too.

    NaN, Infinity, 1e999     Python writes these for log probabilities and scores, and reads them
    a byte order mark        skipped by browsers, and by clients that decode an answer's bytes
    UTF-16, UTF-32           recognised by its first bytes

Rule of the file: valid JSON is read as everywhere else. Failure mode: `None`, or the bytes unchanged.

Source: RFC 8259 sections 6 and 8.1; Python's `json` (`detect_encoding`), which httpx uses; WHATWG Fetch, `json()`.
"""

import json
import re
from typing import Any, Final

from proxy.openai import json_steps

_MOST_BYTES: Final = 1 << 21
"""More is not read leniently: decoded, so many bytes take 50 MB at most."""
_UNUSUAL: Final = re.compile(rb"NaN|Infinity|[eE][+-]?[0-9]{3}")


def read_container(data: bytes) -> Any:
    """Decode an object or a list in UTF-8; `None` for anything else."""
    document = json_steps.read_container(data)
    if document is not None or data.lstrip()[:1] not in (b"{", b"["):
        return document
    if len(data) > _MOST_BYTES or _UNUSUAL.search(data) is None:
        return None
    try:
        return json_steps.Steps(data, _load, json_steps.ANY_DEPTH).load() if json_steps.is_slow(data) else _load(data)
    except ValueError:
        return None


def in_utf8(data: bytes) -> tuple[bytes, str]:
    """Return JSON in UTF-8 without a mark, and how it was encoded: `utf-8` and the same object for nearly all.

    For bytes that are not JSON at all, what is returned may be anything.
    """
    encoding = json.detect_encoding(data)
    if encoding == "utf-8":
        return data, encoding
    try:
        return data.decode(encoding).encode(), encoding
    except UnicodeError:
        return data, "utf-8"


def _load(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
