"""The mask of a secret: its first characters, at most four and at most a quarter of it, then stars.

The number of stars is fixed, so the length is not revealed; equal secrets have equal masks. Only ASCII letters, digits
and `-_+` are kept, so a mask can be part of JSON, a URL or a shell command without breaking it.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from proxy.event_loop.fair_threads import give_way
from proxy.nouns.findings import Finding

KEPT: Final = 4
STARS: Final = "*" * 8
_MANY: Final = 4096
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
    joined: list[str] = []
    pieces: list[str] = []
    at = 0
    for start, end in _spans(findings):
        pieces += (text[at:start], mask(text[start:end]))
        at = end
        if len(pieces) > _MANY:  # a million are joined, and freed, for 50 ms
            joined.append("".join(pieces))
            pieces.clear()
            give_way()
    return "".join([*joined, *pieces, text[at:]])


def _spans(findings: Iterable[Finding]) -> Iterator[tuple[int, int]]:
    """Yield what is masked, by position."""
    begun = until = 0
    for found in _in_order(list(findings)):
        if found.start < until:
            until = max(found.end, until)
            continue
        if until:
            yield begun, until
        begun, until = found.start, found.end
    if until:
        yield begun, until


def _in_order(findings: list[Finding]) -> list[Finding]:
    """Sort by position unless that is so: usually it is, and a sort of half a million takes 50 ms."""
    if any(later.start < earlier.start for earlier, later in pairwise(findings)):
        findings.sort(key=lambda found: found.start)
    return findings
