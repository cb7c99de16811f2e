"""W3C trace context: which trace a request belongs to, and the names of its spans.

    traceparent of the caller --> its trace goes on, its span is the parent of ours
    none, or a malformed one  --> a trace of our own, named by the id of the request: x-sidegate-trace-id without dashes

Names of spans are made of that id too, so nothing has to be kept for them: the request's is its last 16 digits, those
of its parts count on from there. Pure.

Source: W3C Trace Context (level 2), sections 3.2 and 3.3; OpenTelemetry specification, "Probability Sampling".
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_MOST_STATE: Final = 512
_RANDOM_BITS: Final = 56
"""The last seven bytes of a trace id are random; what stands before may not be."""


class Context(NamedTuple):
    """Where a request stands in its trace. Ids in lower-case hexadecimal."""

    trace_id: str
    parent_id: str | None
    """The caller's span; `None`: the trace begins here."""
    sampled: bool
    """What the caller said of it; False where it said nothing."""
    state: str
    """The caller's `tracestate`, as it came."""


def read(fields: Mapping[bytes, bytes], own_id: str) -> Context:
    """Return the context of a request. `own_id`: its UUID, for a trace that begins here."""
    found = _TRACEPARENT.fullmatch(fields.get(b"traceparent", b"").strip())
    if found is None:
        return Context(own_id.replace("-", ""), None, sampled=False, state="")
    version, trace, parent, flags, rest = found.groups()
    if version == b"ff" or trace == _NO_TRACE or parent == _NO_SPAN or (version == b"00" and rest is not None):
        return Context(own_id.replace("-", ""), None, sampled=False, state="")
    state = fields.get(b"tracestate", b"")[:_MOST_STATE].decode("ascii", "replace")
    return Context(trace.decode(), parent.decode(), bool(int(flags, 16) & 1), state)


def span_id(own_id: str, part: int = 0) -> str:
    """Return the name of a request's span (0) or of one of its parts."""
    number = (int(own_id.replace("-", "")[16:], 16) + part) & 0xFFFF_FFFF_FFFF_FFFF
    return f"{number:016x}"


def is_sampled(context: Context, sampler: str, share: float) -> bool:
    """Tell whether a request has spans, by a sampler of the specification. All of one trace decide alike."""
    if sampler.startswith("parentbased_"):
        if context.parent_id is not None:
            return context.sampled
        sampler = sampler.removeprefix("parentbased_")
    if sampler != "traceidratio":
        return sampler == "always_on"
    random = int(context.trace_id[-_RANDOM_BITS // 4 :], 16)
    return random >= round((1 - share) * (1 << _RANDOM_BITS))


def traceparent(context: Context, parent_id: str, *, sampled: bool) -> bytes:
    """Return the header that makes `parent_id` the parent of what the next one does."""
    return f"00-{context.trace_id}-{parent_id}-{'01' if sampled else '00'}".encode()
