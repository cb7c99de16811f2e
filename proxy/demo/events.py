"""Server-sent events of the demo upstream, and what every document of one answer repeats.

Rules of the file: no I/O. `Frame.tokens` says how many output tokens a frame carries, so that the sender knows at any
moment what an aborted stream has cost.

Source: WHATWG HTML, "Server-sent events".
"""

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes, and the output tokens it carries."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """What every document of an answer repeats. `created`: seconds since 1970 UTC."""

    id: str
    created: int
    model: str
    input_tokens: int


DONE = Frame(b"data: [DONE]\n\n")
GARBAGE = Frame(b'data: {"choices": [{"index": 0, "del\n\n')
"""An event whose data is no JSON."""


def event(document: dict[str, Any], tokens: int = 0, name: str | None = None) -> Frame:
    """Return one event; `name` becomes its `event:` line."""
    prefix = f"event: {name}\n".encode() if name else b""
    return Frame(prefix + b"data: " + orjson.dumps(document) + b"\n\n", tokens)
