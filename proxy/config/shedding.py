"""The keys of load shedding: how late the event loop and how full the memory may be before something is given up.

Each degree includes those before it: contents are no longer captured; projects may not exceed their even share; only
critical requests are admitted; none are admitted; and, for memory alone, the request that holds most is ended.
"""

from typing import Annotated

from pydantic import Field

from proxy.config.units import Seconds, Section

Share = Annotated[float, Field(gt=0, le=10)]


class Shedding(Section):
    """Refuse new requests with 503 while the process is short of time or memory; what matters least goes first."""

    content_lag_s: Seconds = Field(
        0.1,
        description="Event loop this late three times in a row: bodies of new requests are not captured "
        "(tracing.content), as redacting and storing them is the most dispensable work.",
    )
    fair_lag_s: Seconds = Field(
        0.25,
        description="This late: a project with its even share of the running requests gets 503 for more, unless they "
        "are critical. By then every step of every stream waits this long.",
    )
    full_lag_s: Seconds = Field(
        0.5,
        description="This late: every new request gets 503 unless it is critical (admission.priority of its project); "
        "a retry elsewhere is faster than an answer from here.",
    )
    closed_lag_s: Seconds = Field(
        1.0, description="This late: every new request gets 503. At twice full_lag_s even critical ones are too many."
    )
    memory_limit_bytes: Annotated[int, Field(ge=0, le=1 << 53)] = Field(
        0, description="Memory that this process may have. 0: the limit of its control group, if any."
    )
    bodies_memory: Share = Field(
        0.125,
        description="Share that JSON request bodies may hold together, besides limits.buffered_bytes. To read, scan "
        "and send them takes up to 3.4 times their size, and that arrives faster than memory is measured.",
    )
    content_memory: Share = Field(
        0.8, description="Resident share of it: as at content_lag_s. Above 1: never, as for the others."
    )
    fair_memory: Share = Field(
        0.9, description="Resident share of it: as at fair_lag_s. Above 1: never, if something else limits memory."
    )
    full_memory: Share = Field(
        0.95, description="Resident share of it: as at full_lag_s. The rest is for running requests."
    )
    closed_memory: Share = Field(0.97, description="Resident share of it: as at closed_lag_s.")
    reset_memory: Share = Field(
        0.98,
        description="Resident share of it: the request that holds most memory is ended, then the next. Otherwise "
        "the system would kill the process with all requests.",
    )
    critical_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2,
        description="Part of limits.concurrent_requests that only critical requests may take, as long as some project "
        "may have such requests. A fifth lets them begin at once while their number doubles.",
    )
