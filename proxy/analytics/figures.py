"""The nouns of analytics: queries and their results.

Amounts are exact: integers, and decimal dollars. Averages and rates are computed where they are shown. A request counts
once in sums of requests, however many calls it made; sums by layer or model are sums of its calls, in which `requests`
are those that made at least one such call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

Period = Literal["day", "week", "month"]
PERIODS = 30
"""The default range has this many periods, including the current one."""
Edge = date | datetime
"""A calendar day of the project, or a time with a zone."""
Measure = Literal["duration", "first_byte"]


@dataclass(frozen=True, slots=True)
class Question:
    """A query; `None`: no restriction."""

    project_id: str | None = None
    """`None`: all projects, each by the days of its own time zone."""
    user_id: str | None = None
    layer: str | None = None
    model: str | None = None
    request_type: str | None = None
    since: Edge | None = None
    """Inclusive. Default: `PERIODS` before the end."""
    until: Edge | None = None
    """A day is included, a time is exclusive. Default: the end of today."""
    period: Period = "day"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From a time to a time, the end excluded."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over requests or calls, in the order of the columns."""

    requests: int = 0
    calls: int = 0
    errors: int = 0
    """Requests without a regular answer, except those aborted by the client; or calls that failed."""
    rejected: int = 0
    """Those of the errors that were refused before a provider was called."""
    aborted: int = 0
    """Aborted by the client."""
    cache_hits: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    """Dollars."""
    timed: int = 0
    """Number of those with a duration."""
    duration_us: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def average_ms(self) -> float:
        """The mean duration in milliseconds, 0 without any."""
        return round(self.duration_us / self.timed / 1000, 3) if self.timed else 0.0


_NAMES = tuple(field.name for field in fields(Sums))


@dataclass(frozen=True, slots=True)
class Usage:
    """The sums of a time range. Periods, layers and models without any request are omitted."""

    time_range: TimeRange
    total: Sums
    by_period: Mapping[date, Sums]
    """By the first day of the period, in order."""
    by_layer: Mapping[str, Sums]
    by_model: Mapping[str, Sums]
    """The most expensive first."""


@dataclass(frozen=True, slots=True)
class Share:
    """One user's or one project's sums over whole days."""

    name: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Durations in milliseconds; `None` without any. Off by at most 4.4 percent."""

    number: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of requests, and of calls by layer and model, each by measure, over whole days."""

    time_range: TimeRange
    total: Mapping[Measure, Percentiles]
    by_layer: Mapping[str, Mapping[Measure, Percentiles]]
    by_model: Mapping[str, Mapping[Measure, Percentiles]]


@dataclass(frozen=True, slots=True)
class Expensive:
    """One expensive request."""

    trace_id: str
    created_at: datetime
    project_id: str | None
    user_id: str | None
    request_type: str | None
    model: str | None
    outcome: str | None
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal
    duration_ms: float | None


def percentiles(counts: Mapping[int, int]) -> Percentiles:
    """Return the percentiles of a histogram, by nearest rank. `counts`: by bucket; bucket b is about 2^(b/8) ms."""
    number = sum(counts.values())
    ranks = [-(-number * percent // 100) for percent in (50, 95, 99)]
    found: list[float] = []
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        while len(found) < len(ranks) and seen >= max(ranks[len(found)], 1):
            found.append(round(2.0 ** (bucket / 8), 3))
    return Percentiles(number, *found)
