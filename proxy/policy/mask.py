"""The mask of a secret: its first characters, at most four and at most a quarter of it, then stars.

The number of stars is fixed, so the length is not revealed; equal secrets have equal masks. Only ASCII letters, digits
and `-_+` are kept, so a mask can be part of JSON, a URL or a shell command without breaking it.
"""

import re
from collections.abc import Iterable
from typing import Final

from proxy.findings import Finding

KEPT: Final = 4
STARS: Final = "*" * 8
_SAFE: Final = re.compile(r"[A-Za-z0-9_+-]*")


def mask(secret: str) -> str:
    """Return the mask of `secret`. Depends only on its length and its first four characters."""
    return kept(secret, len(secret)) + STARS


def kept(head: str, length: int) -> str:
    """Return the kept part of a secret, from its length (any from 16 on is equivalent) and its first characters."""
    safe = _SAFE.match(head[: min(KEPT, length // 4)])
    return safe[0] if safe else ""


def redact(text: str, findings: Iterable[Finding]) -> str:
    """Return `text` with every finding masked; overlapping findings get one mask."""
    pieces: list[str] = []
    at = 0
    for start, end in _joined(findings):
        pieces += (text[at:start], mask(text[start:end]))
        at = end
    pieces.append(text[at:])
    return "".join(pieces)


def _joined(findings: Iterable[Finding]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for start, end in sorted((finding.start, finding.end) for finding in findings):
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans
