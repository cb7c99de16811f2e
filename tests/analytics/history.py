"""A history of requests, and what it adds up to by plain arithmetic: no SQL, no code of the product."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

from proxy.journal.frames import Kind, Record
from proxy.trace.record import trace_id

ZONES = {"shop": "UTC", "lab": "Asia/Kathmandu", "bank": "America/New_York", "unknown": "UTC"}
"""Of each project; +05:45 has quarters of an hour, New York changes its clocks on 2026-11-01."""
USERS = ("alice", "bob", "*", "ünï 😀")
MODELS = {"L0": ("small", "free"), "L1": ("gpt-4o",), "L3": ("opus",), None: ("gpt-4o", "plain")}
TYPES = ("chat", "responses", "embeddings")


def _dollars(nanos: int) -> str:
    return f"{nanos // 10**9}.{nanos % 10**9:09d}"


@dataclass
class Call:
    layer: str | None
    model: str
    failed: bool
    input: int
    output: int
    nanos: int
    us: int
    cut: bool = False
    """The client left during this call: nobody's failure."""

    def document(self, index: int) -> dict[str, object]:
        return {
            "index": index,
            "model": self.model,
            **({} if self.layer is None else {"layer": self.layer}),
            "status": None if self.cut else 500 if self.failed else 200,
            "error": {"code": "server_error"} if self.failed else None,
            "inputTokens": self.input,
            "cachedInputTokens": self.input // 3,
            "outputTokens": self.output,
            "cost": _dollars(self.nanos),
            "durationMs": self.us / 1000,
            "firstByteMs": self.us / 2000,
        }


@dataclass
class Request:
    at: datetime
    project: str
    user: str | None
    type: str
    outcome: str
    cached: bool
    us: int | None
    calls: list[Call] = field(default_factory=list)
    id: str = ""
    findings: tuple[int, int] = (0, 0)
    """Of one rule, and those beyond what a trace keeps."""

    @property
    def day(self) -> date:
        return self.at.astimezone(ZoneInfo(ZONES[self.project])).date()

    def record(self) -> Record:
        body = {
            "id": self.id,
            "created_at": self.at.isoformat(),
            "request_type": self.type,
            "operation": "x",
            "user_id": self.user,
            "project_id": self.project,
            "model": "auto",
            "outcome": self.outcome,
            "routing_decisions": [{"cache": "hit"}] if self.cached else [],
            "llm_calls": [call.document(index) for index, call in enumerate(self.calls)],
            "input_tokens": sum(call.input for call in self.calls),
            "cached_input_tokens": sum(call.input // 3 for call in self.calls),
            "output_tokens": sum(call.output for call in self.calls),
            "total_cost": _dollars(sum(call.nanos for call in self.calls)),
            "total_duration_ms": None if self.us is None else self.us / 1000,
            "policy": self.policy(),
        }
        return Record(Kind.FINAL, UUID(self.id).bytes, json.dumps(body).encode(), 0, 0)

    def policy(self) -> dict[str, object]:
        found = {"rule": "email", "category": "pii", "action": "redact", "direction": "input", "place": "input"}
        named, more = self.findings
        return {"version": "1", "findings": [found] * named, **({"moreFindings": more} if more else {})}


def generate(number: int, first: date, days: int, seed: int = 7) -> list[Request]:
    """Return requests of every kind, spread over the days, many of them close to midnight somewhere."""
    dice = random.Random(seed)
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    return [_request(dice, start + timedelta(seconds=_moment(dice, days))) for _ in range(number)]


def _moment(dice: random.Random, days: int) -> float:
    day, kind = dice.randrange(days), dice.random()
    if kind < 0.4:  # just around a midnight of one of the zones
        return day * 86400 + dice.choice((0, 18.25, 4, 5)) * 3600 + dice.randint(-2000, 2000) / 1000 + 3
    return day * 86400 + dice.randrange(86400000) / 1000 + 3


def _request(dice: random.Random, at: datetime) -> Request:
    outcome = dice.choices(
        ("ok", "rejected", "upstream_error", "client_abort", "interrupted", "timeout"), (70, 8, 6, 8, 2, 2)
    )[0]
    cached = outcome == "ok" and dice.random() < 0.1
    calls = []
    if outcome != "rejected" and not cached:
        layers = dice.choices((None, "L0", "L1", "L3"), k=dice.choice((1, 1, 1, 2, 3)))
        calls = [_call(dice, layer) for layer in layers]
        if outcome == "ok":
            calls[-1].failed = False
        if outcome == "upstream_error":
            calls[-1].failed = True
        if outcome == "client_abort":
            calls[-1].failed, calls[-1].cut = False, True
        if dice.random() < 0.2:  # a retry of the same model
            calls.insert(0, Call(calls[0].layer, calls[0].model, True, 0, 0, 0, dice.randrange(10**6)))
    at_ms = int(at.timestamp() * 1000)
    return Request(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        project=dice.choice(tuple(ZONES)),
        user=None if outcome == "rejected" and dice.random() < 0.3 else dice.choice(USERS),
        type=dice.choice(TYPES),
        outcome=outcome,
        cached=cached,
        us=None if outcome == "interrupted" else dice.randrange(1, 5_000_000),
        calls=calls,
        id=trace_id(at_ms),
        findings=dice.choice(((0, 0), (1, 0), (3, 0), (2, 5))),
    )


def _call(dice: random.Random, layer: str | None) -> Call:
    return Call(
        layer,
        dice.choice(MODELS[layer]),
        dice.random() < 0.1,
        dice.randrange(5000),
        dice.randrange(2000),
        dice.choice((0, 1, 333_333_333, dice.randrange(10**9), dice.randrange(10**7))),
        dice.randrange(3_000_000),
    )


Key = Callable[[Request], object]


@dataclass
class Sum:
    requests: int = 0
    calls: int = 0
    errors: int = 0
    input: int = 0
    output: int = 0
    nanos: int = 0
    us: list[int] = field(default_factory=list)

    @property
    def average_ms(self) -> float:
        return float(round(Fraction(sum(self.us), 1000 * len(self.us)), 3)) if self.us else 0.0


def sums(requests: Iterable[Request], key: Key) -> dict[object, Sum]:
    """Add up requests by something of theirs."""
    found: dict[object, Sum] = defaultdict(Sum)
    for request in requests:
        total = found[key(request)]
        total.requests += 1
        total.errors += request.outcome not in ("ok", "client_abort")
        if request.us is not None:
            total.us.append(request.us)
        for call in request.calls:
            total.calls += 1
            total.input += call.input
            total.output += call.output
            total.nanos += call.nanos
    return dict(found)


def call_sums(requests: Iterable[Request], key: Callable[[Call], str], keep: Callable[[Call], bool]) -> dict[str, Sum]:
    """Add up calls by something of theirs."""
    found: dict[str, Sum] = defaultdict(Sum)
    for request in requests:
        for name in {key(call) for call in request.calls if keep(call)}:
            found[name].requests += 1
        for call in request.calls:
            if not keep(call):
                continue
            total = found[key(call)]
            total.calls += 1
            total.errors += call.failed
            total.input += call.input
            total.output += call.output
            total.nanos += call.nanos
            total.us.append(call.us)
    return dict(found)
