"""The keys of load shedding: how late and how full a process may be before it gives up something, and what.

Degrees of both, each with all before it: nothing is captured any more; projects may not grow beyond their even share;
only critical requests begin; nothing begins; of memory alone: what holds most is ended.
"""

from typing import Annotated

from pydantic import Field

from proxy.config.units import Seconds, Section

Share = Annotated[float, Field(gt=0, le=10)]


class Shedding(Section):
    """Refuse new requests with 503 while the process is short of time or memory; what matters least goes first."""

    content_lag_s: Seconds = Field(
        0.1,
        description="Event loop so late for three looks in a row: bodies of new requests are not captured "
        "(tracing.content). To redact and write them is the work that can be left out first.",
    )
    fair_lag_s: Seconds = Field(
        0.25,
        description="So late: a project that has its even share of the running requests gets 503 for more, unless they "
        "are critical. Every step of every stream waits so long by then.",
    )
    full_lag_s: Seconds = Field(
        0.5,
        description="So late: every new request gets 503 that is not critical (admission.priority of its project); a "
        "retry elsewhere is faster than an answer from here.",
    )
    closed_lag_s: Seconds = Field(
        1.0, description="So late: every new request gets 503. Twice full_lag_s: critical ones are too many themselves."
    )
    memory_limit_bytes: Annotated[int, Field(ge=0, le=1 << 53)] = Field(
        0, description="Memory that this process may have. 0: the limit of its control group, if that has one."
    )
    bodies_memory: Share = Field(
        0.125,
        description="JSON request bodies held at the same time take at most so much of it, and limits.buffered_bytes. "
        "Read, scanned and sent they need up to 3.4 times their bytes, and that comes faster than memory is looked at.",
    )
    content_memory: Share = Field(
        0.8, description="So much of it resident: as at content_lag_s. Above 1: never, as for the others."
    )
    fair_memory: Share = Field(
        0.9, description="So much of it resident: as at fair_lag_s. Above 1: never, where something else bounds memory."
    )
    full_memory: Share = Field(
        0.95, description="So much of it resident: as at full_lag_s. What is left is for requests that run."
    )
    closed_memory: Share = Field(0.97, description="So much of it resident: as at closed_lag_s.")
    reset_memory: Share = Field(
        0.98,
        description="So much of it resident: the request that holds most memory is ended, then the next. The others "
        "would end with it, were the process killed.",
    )
    critical_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2,
        description="Part of limits.concurrent_requests that only critical requests may take, as long as some project "
        "may have such requests. A fifth lets them begin at once while their number doubles.",
    )
