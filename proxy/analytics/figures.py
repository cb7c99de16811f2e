"""The nouns of analytics: what is asked, and the sums that answer.

Amounts are exact: integers, and decimal dollars. Averages and rates are made where they are shown. A request counts
once in sums of requests, however many calls it made; sums by layer or model are sums of its calls, and there `requests`
are those that made at least one such call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

Period = Literal["day", "week", "month"]
PERIODS = 30
"""A question without dates is about so many periods, the present one included."""
Edge = date | datetime
"""A calendar day of the project, or a moment with a zone."""
Measure = Literal["duration", "first_byte"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for; `None` asks for nothing."""

    project_id: str | None = None
    """Without one all projects, each by the days of its own zone."""
    user_id: str | None = None
    layer: str | None = None
    model: str | None = None
    request_type: str | None = None
    since: Edge | None = None
    """Inclusive. Without one `PERIODS` are counted back from the end."""
    until: Edge | None = None
    """A day is included whole, a moment is not included; without one the end of today."""
    period: Period = "day"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From a moment to a moment, the end not included."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Sums:
    """What a set of requests, or of calls, adds up to; in the order of the columns."""

    requests: int = 0
    calls: int = 0
    errors: int = 0
    """Requests that were not answered, but for those that the client left; or calls that failed."""
    rejected: int = 0
    """Those of the errors that were refused before a provider was asked."""
    aborted: int = 0
    """Left by the client."""
    cache_hits: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    """Dollars."""
    timed: int = 0
    """How many have a duration."""
    duration_us: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def average_ms(self) -> float:
        """The mean duration in milliseconds, 0 where nothing has one."""
        return round(self.duration_us / self.timed / 1000, 3) if self.timed else 0.0


_NAMES = tuple(field.name for field in fields(Sums))


@dataclass(frozen=True, slots=True)
class Usage:
    """The sums of a time range. Periods, layers and models without any request are absent."""

    time_range: TimeRange
    total: Sums
    by_period: Mapping[date, Sums]
    """By the first day of the period, in order."""
    by_layer: Mapping[str, Sums]
    by_model: Mapping[str, Sums]
    """The dearest first."""


@dataclass(frozen=True, slots=True)
class Share:
    """One user's or one project's part of whole days."""

    name: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long things took, in milliseconds; `None` where nothing was measured. Off by at most 4.4 percent."""

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
    """One dear request."""

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
