"""Decides which header fields cross the proxy, in both directions.

Rule of the file: what passes keeps its order, case and bytes; what is ours to set (framing, hop-by-hop, identity,
credentials) is never taken from the other side. A field that `Connection` nominates is dropped, but our own fields are
added after that, so no client can strip them. Pure, no I/O.

Failure mode: an unknown field passes, unless its name suggests a credential; then it is dropped. To send such a field
anyway, configure it in `upstream.headers`, which is not filtered.

Source: RFC 9110 section 7.6.1 (hop-by-hop), section 12.5.3 (Accept-Encoding).
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from proxy.exchange import Header, Headers

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"close", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
"""`close` is not a field but an option of Connection; its name is reserved, so that it cannot become one."""
_FRAMING: Final = frozenset({b"host", b"content-length", b"expect"})
_IDENTITY: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"true-client-ip",
        b"x-original-forwarded-for",
        b"openai-organization",
        b"openai-project",
    }
)
_ANSWER_ONLY_OURS: Final = frozenset({b"content-length", b"set-cookie", b"set-cookie2", b"alt-svc"})
_OUR_PREFIX: Final = b"x-sidegate-"
_PREFIXES: Final = (_OUR_PREFIX, b"x-forwarded-", b"proxy-")
_CREDENTIAL: Final = re.compile(
    rb"authorization|api[-_]?key|token|secret|password|credential|cookie|(?:^|[-_])(?:auth|key)(?:$|[-_])"
)
_NO_CREDENTIAL: Final = frozenset({b"idempotency-key", b"x-idempotency-key"})
"""Names that suggest a credential but are none."""
_DECODABLE: Final = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
_ZERO_WEIGHT: Final = re.compile(rb";\s*q\s*=\s*0(?:\.0*)?\s*$")
_REMEMBERED: Final = 256
_NONE: Final[frozenset[bytes]] = frozenset()

_PASS, _DROP, _CONNECTION, _ACCEPT_ENCODING = range(4)


def request_headers(inbound: Headers, *, authorization: bytes | None, extra: Headers) -> Headers:
    """Return the fields for the provider, without framing.

    `authorization`: the complete value of our own credential, including its scheme. `extra`: configured fields; each
    replaces the client's fields of the same name.
    """
    kept: list[Header] = []
    unwanted: frozenset[bytes] = frozenset([name.lower() for name, _ in extra]) if extra else _NONE
    for field in inbound:
        fate = _REQUEST_FATES[field[0]]
        if fate == _PASS:
            kept.append(field)
        elif fate == _ACCEPT_ENCODING:
            kept.append((field[0], _decodable(field[1])))
        elif fate == _CONNECTION:
            unwanted |= _nominated(field[1])
    if unwanted:
        kept = [field for field in kept if field[0].lower() not in unwanted]
    if authorization is not None:
        kept.append((b"Authorization", authorization))
    kept.extend(extra)
    return kept


def response_headers(upstream: Headers, *, secrets: Sequence[bytes] = ()) -> Headers:
    """Return the fields for the client, without framing.

    `secrets`: credentials that must not be returned; a field that contains one, in its name or value, is dropped.
    """
    kept: list[Header] = []
    unwanted = _NONE
    for field in upstream:
        fate = _RESPONSE_FATES[field[0]]
        if fate == _PASS:
            kept.append(field)
        elif fate == _CONNECTION:
            unwanted |= _nominated(field[1])
    if unwanted:
        kept = [field for field in kept if field[0].lower() not in unwanted]
    if secrets:
        # One search for the usual case that no field contains a secret; neither part can contain a line end.
        parts = b"\n".join(chain.from_iterable(kept))
        for secret in secrets:
            if secret and parts.find(secret) >= 0:
                kept = [field for field in kept if secret not in field[1] and secret not in field[0]]
    return kept


def names_credential(name: bytes) -> bool:
    """Tell whether a field of this name is treated as carrying a credential."""
    lowered = name.lower().replace(b"_", b"-")
    return lowered not in _NO_CREDENTIAL and _CREDENTIAL.search(lowered) is not None


def _judge_request(name: bytes) -> int:
    lowered = name.lower().replace(b"_", b"-")  # many servers treat the two alike
    if lowered == b"accept-encoding":
        return _ACCEPT_ENCODING
    if lowered == b"connection":
        return _CONNECTION
    if lowered in _HOP_BY_HOP or lowered in _FRAMING or lowered in _IDENTITY or lowered.startswith(_PREFIXES):
        return _DROP
    return _DROP if names_credential(lowered) else _PASS


def _judge_response(name: bytes) -> int:
    lowered = name.lower()
    if lowered == b"connection":
        return _CONNECTION
    if lowered in _HOP_BY_HOP or lowered in _ANSWER_ONLY_OURS:
        return _DROP
    return _DROP if lowered.startswith((_OUR_PREFIX, b"proxy-")) else _PASS


class _Fates(dict[bytes, int]):
    """Caches the decision of `judge` by the exact bytes of a name; cleared when it grows too large."""

    __slots__ = ("_judge",)

    def __init__(self, judge: Callable[[bytes], int]) -> None:
        self._judge = judge

    def __missing__(self, name: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        fate = self[name] = self._judge(name)
        return fate


# The same few dozen names and values come with every request: 12 fields cost 1 us with this cache and 11 us without
# (bench/wire_format.py). The longest line bounds a name, so the cache cannot exceed a few MiB.
_REQUEST_FATES = _Fates(_judge_request)
_RESPONSE_FATES = _Fates(_judge_response)


@lru_cache(_REMEMBERED)
def _nominated(value: bytes) -> frozenset[bytes]:
    """Return the fields that a Connection value names, except those that never pass anyway."""
    return frozenset(option.strip(b" \t").lower() for option in value.split(b",")) - _HOP_BY_HOP


@lru_cache(_REMEMBERED)
def _decodable(value: bytes) -> bytes:
    """Return an Accept-Encoding value limited to codings that we can decode, with their weights."""
    members = [member.strip(b" \t") for member in value.split(b",")]
    kept = [member for member in members if not member or member.partition(b";")[0].strip().lower() in _DECODABLE]
    if len(kept) == len(members):
        return value
    kept = [member for member in kept if member]
    if all(_ZERO_WEIGHT.search(member) for member in kept):
        return b"identity"
    return b", ".join(kept)
