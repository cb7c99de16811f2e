"""Failures on request: what may be asked for, and how it is written.

A client asks with the header `x-demo-fault`, or behind a `!` in the model's name where it cannot set headers:

    x-demo-fault: status=503
    {"model": "demo-small!delay_ms=50,after=3,cut", ...}

Rules of the file: no I/O; a fault that is not understood is an error of the client, never ignored.
"""

from dataclasses import dataclass, fields
from typing import Any

FAULTS = {
    "status=CODE": "answer with this status (400 to 599) and an error of OpenAI's shape",
    "rate_limit": "answer 429 with x-ratelimit-* and retry-after headers",
    "delay_ms=N": "wait before the answer's head and before every event; 10 between events if not given",
    "after=K": "let K events pass before cut, hang, error or garbage; 0 if not given",
    "cut": "drop the connection there; in an answer that is no stream, in the middle of its body",
    "hang": "stop sending there, but keep the connection open",
    "error": "send an error event there and end the stream without its terminator",
    "garbage": "send something there that is no JSON",
    "no_usage": "leave the token counts out",
    "no_done": "end the stream without its terminator",
}
"""What `--help` and the documentation say."""

STREAM_DELAY_MS = 10
"""Pause between events, so that a person sees a stream."""
MAX_DELAY_MS = 600_000


class FaultError(ValueError):
    """The wanted fault is not understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in one answer. The default goes well."""

    status: int = 0
    """0: the answer's own."""
    delay_ms: int | None = None
    after: int = 0
    rate_limit: bool = False
    cut: bool = False
    hang: bool = False
    error: bool = False
    garbage: bool = False
    no_usage: bool = False
    no_done: bool = False

    @property
    def breaks_stream(self) -> bool:
        """Tell whether something happens after `after` events."""
        return self.cut or self.hang or self.error or self.garbage

    @property
    def head_delay_s(self) -> float:
        """Seconds before the answer's head."""
        return (self.delay_ms or 0) / 1000

    @property
    def event_delay_s(self) -> float:
        """Seconds before each event."""
        return (STREAM_DELAY_MS if self.delay_ms is None else self.delay_ms) / 1000


FLAGS = frozenset(field.name for field in fields(Fault) if field.type is bool)
RANGES = {"status": (400, 599), "after": (0, 1_000_000), "delay_ms": (0, MAX_DELAY_MS)}


def parse(text: str) -> Fault:
    """Read `status=503,after=2,cut`; an empty text is no fault.

    Raises:
        FaultError: an unknown name, or a number that is missing or out of range.
    """
    wanted: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = word.partition("=")
        if name in FLAGS and not equals:
            wanted[name] = True
        elif name in RANGES:
            wanted[name] = _number(name, number)
        else:
            raise FaultError(f"unknown fault; known are {', '.join(FAULTS)}")
    return Fault(**wanted)


def split_model(model: str) -> tuple[str, str]:
    """Return the model's own name and the fault text behind its `!`."""
    name, _, fault = model.partition("!")
    return name, fault


def _number(name: str, text: str) -> int:
    low, high = RANGES[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
        raise FaultError(f"{name} must be a whole number between {low} and {high}")
    return int(text)
