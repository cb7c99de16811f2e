"""W3C trace context: the trace that a request belongs to, and the ids of its spans.

    traceparent of the caller --> its trace continues, its span is the parent of ours
    none, or a malformed one  --> a new trace, with the id of the request: x-sidegate-trace-id without dashes

Span ids are derived from that id too, so nothing has to be stored for them: the request's is its last 16 digits, and
those of its parts count up from there. Pure.

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
"""The last seven bytes of a trace id are random; the rest may not be."""


class Context(NamedTuple):
    """The trace context of a request. Ids in lower-case hexadecimal."""

    trace_id: str
    parent_id: str | None
    """The caller's span; `None`: the trace begins here."""
    sampled: bool
    """The caller's flag; False without one."""
    state: str
    """The caller's `tracestate`, unchanged."""


def read(fields: Mapping[bytes, bytes], own_id: str) -> Context:
    """Return the context of a request. `own_id`: its UUID, used if the trace begins here."""
    found = _TRACEPARENT.fullmatch(fields.get(b"traceparent", b"").strip())
    if found is None:
        return Context(own_id.replace("-", ""), None, sampled=False, state="")
    version, trace, parent, flags, rest = found.groups()
    if version == b"ff" or trace == _NO_TRACE or parent == _NO_SPAN or (version == b"00" and rest is not None):
        return Context(own_id.replace("-", ""), None, sampled=False, state="")
    state = fields.get(b"tracestate", b"")[:_MOST_STATE].decode("ascii", "replace")
    return Context(trace.decode(), parent.decode(), bool(int(flags, 16) & 1), state)


def span_id(own_id: str, part: int = 0) -> str:
    """Return the id of a request's span (0) or of one of its parts."""
    number = (int(own_id.replace("-", "")[16:], 16) + part) & 0xFFFF_FFFF_FFFF_FFFF
    return f"{number:016x}"


def is_sampled(context: Context, sampler: str, share: float) -> bool:
    """Tell whether a request has spans, by a sampler of the specification. Consistent within one trace."""
    if sampler.startswith("parentbased_"):
        if context.parent_id is not None:
            return context.sampled
        sampler = sampler.removeprefix("parentbased_")
    if sampler != "traceidratio":
        return sampler == "always_on"
    random = int(context.trace_id[-_RANDOM_BITS // 4 :], 16)
    return random >= round((1 - share) * (1 << _RANDOM_BITS))


def traceparent(context: Context, parent_id: str, *, sampled: bool) -> bytes:
    """Return the header that makes `parent_id` the parent of the next service's spans."""
    return f"00-{context.trace_id}-{parent_id}-{'01' if sampled else '00'}".encode()
