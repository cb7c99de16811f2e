"""Server-sent events: text outside the data lines, in comments, ids, names of events and unknown fields.

Clients ignore it or do not show it, but they receive it, and so does whoever logs the stream.

Rule of the file: every other byte is kept. Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

import re
from collections.abc import Callable
from typing import Final

from proxy.openai.sse import BOM, Event, split_field

_FIELDS: Final = frozenset({b"", b"id", b"event", b"retry"})
_NAME: Final = re.compile(rb"[a-z_.]{1,64}")
SHORTEST: Final = 12
"""A shorter text holds no secret."""
_LONG: Final = re.compile(rb"[^\r\n]{%d}" % SHORTEST)
_DATA_FRAMING: Final = len(b"data: \n\n")
_NAME_FRAMING: Final = len(b"event: \n")


def may_have_asides(cut: bytes, event: Event | None) -> bool:
    """Tell, for an event at the cost of a look at lengths, whether an event as it came may hold such a text."""
    if event is None:
        return _LONG.search(cut) is not None
    framing = len(cut) - len(event.data) - _DATA_FRAMING
    if event.name is not None:
        framing -= len(event.name) + _NAME_FRAMING
        if _NAME.fullmatch(event.name) is None:
            return True
    return framing >= SHORTEST


def with_asides(cut: bytes, replaced: Callable[[bytes], bytes]) -> bytes:
    """Return an event with each such text `replaced`."""
    out = []
    for line in cut.splitlines(keepends=True):
        content = line.rstrip(b"\r\n")
        text = _aside(content.removeprefix(BOM))
        if len(text) < SHORTEST:
            out.append(line)
        else:
            out += (content[: len(content) - len(text)], replaced(text), line[len(content) :])
    return b"".join(out)


def _aside(content: bytes) -> bytes:
    """Return the part of a line that is such a text, always at its end."""
    label, value = split_field(content)
    if label == b"data":
        return b""
    return value if label in _FIELDS else content
