"""The keys of load shedding: how late and how full a process may be before it refuses what is new.

Two degrees of both: first projects may not grow beyond their even share, then nothing new begins.
"""

from typing import Annotated

from pydantic import Field

from proxy.config.units import Seconds, Section

Share = Annotated[float, Field(gt=0, le=10)]


class Shedding(Section):
    """Refuse new requests with 503 while the process is short of time or memory; running ones are never touched."""

    fair_lag_s: Seconds = Field(
        0.25,
        description="Event loop so late for three looks in a row: a project that has its even share of the running "
        "requests gets 503 for more. Every step of every stream waits so long by then.",
    )
    full_lag_s: Seconds = Field(
        0.5, description="So late: every new request gets 503; a retry elsewhere is faster than an answer from here."
    )
    memory_limit_bytes: Annotated[int, Field(ge=0, le=1 << 53)] = Field(
        0, description="Memory that this process may have. 0: the limit of its control group, if that has one."
    )
    fair_memory: Share = Field(
        0.9, description="So much of it resident: as at fair_lag_s. Above 1: never, where something else bounds memory."
    )
    full_memory: Share = Field(
        0.95, description="So much of it resident: as at full_lag_s. What is left is for requests that run."
    )
