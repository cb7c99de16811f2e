"""What a key is limited to, and what it may pass on: a key can never exceed the key that created it.

    {"models": [names], "operations": [names or kinds], "surfaces": ["data", "api"]}    absent: not limited

A kind (`chat`) includes its operations (`chat.completions.create`), but a list of operations never includes their kind,
which may gain more. If a key has a limit, every key that it creates has to state one: leaving it out would mean "not
limited", which is more.

Pure; never raises.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from proxy.openai.operations import KINDS, operations

SCOPES: Final = ("models", "operations", "surfaces")
SURFACES: Final = ("data", "api")
OPERATION_KINDS: Final = tuple(sorted({op.request_type for op in operations()}))
OPERATIONS: Final = (*OPERATION_KINDS, *[op.name for op in operations()])
"""Every kind and name that a key can be limited to."""
Scopes = Mapping[str, Sequence[str]]


def scope(values: Any) -> frozenset[str] | None:
    """Return what a scope allows; `None`: everything."""
    return None if values is None else frozenset(values)


def exceeding(new: Scopes, expires_at: datetime | None, own: Scopes, own_end: datetime | None) -> tuple[str, ...]:
    """Return the members of a new key by which it would be more than `own`, a key that makes it; none if it fits."""
    beyond = [f"scopes.{name}" for name in SCOPES if not _is_within(scope(new.get(name)), scope(own.get(name)))]
    if own_end is not None and (expires_at is None or expires_at > own_end):
        beyond.append("expiresAt")
    return tuple(beyond)


def _is_within(new: frozenset[str] | None, own: frozenset[str] | None) -> bool:
    if own is None:
        return True
    return new is not None and all(name in own or KINDS.get(name) in own for name in new)
