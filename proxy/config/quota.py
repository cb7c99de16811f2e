"""The section `quota`: what a caller may use by default, and how this replica holds its part of it."""

import re
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.units import Count, Dollars, Seconds, Section

_OUTAGE_POLICY: Final = re.compile(r"closed|lease|open|capped:[0-9]{1,6}(\.[0-9]{1,9})?")


def _check_outage_policy(value: str) -> str:
    """Accept `closed`, `lease`, `open` and `capped:` with an amount of dollars."""
    if not _OUTAGE_POLICY.fullmatch(value):
        raise ValueError("must be closed, lease, open or capped:<dollars>, for example capped:5.00")
    return value


class Quota(Section):
    """Daily limits of tokens and money per user and project. Limits of one project are in `projects.config`."""

    enabled: bool = Field(True, description="False admits everything; charges are still recorded in user_quotas.")
    default_tokens_daily: Annotated[int, Field(ge=0, le=10**15)] = Field(
        1_000_000, description="Tokens a day for a caller seen for the first time, unless its project says otherwise."
    )
    default_cost_daily: Dollars = Field(Decimal("10.0"), description="Dollars a day for such a caller.")
    on_database_outage: Annotated[str, AfterValidator(_check_outage_policy)] = Field(
        "lease",
        description="Without PostgreSQL: `closed` refuses; `lease` serves what this replica holds; `capped:5.00` "
        "serves up to this amount more per replica and caller; `open` serves everything.",
    )
    cold_start_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="Share of the default limits that a replica serves per caller before it has ever reached "
        "PostgreSQL, under `lease`; 0 refuses until then.",
    )
    cold_start_wait_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        5.0, description="For this long after the start, requests wait for the first contact instead."
    )
    assumed_output_tokens: Count = Field(
        32_768, description="Reserved for an answer without a maximum, from a model whose limit is unknown."
    )
    default_output_tokens: Count = Field(
        4096,
        description="Maximum, at most, that is written into requests without one if their model's limit does not fit.",
    )
    stream_output_tokens: Count = Field(
        1024, description="Reserved at a time for streams without a maximum if their model's limit does not fit."
    )
    unseen_input_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(
        16_384, description="Reserved for input that only the provider knows: previous responses, stored files."
    )
    at_limit: Literal["finish", "error"] = Field(
        "finish",
        description="How a stream ends that uses up the quota: as if it had reached its maximum length, or with an "
        "error event.",
    )
    lease_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="Minimum share of a daily limit that a replica leases at once while plenty is left."
    )
    lease_ttl_s: Seconds = Field(
        30.0, description="A lease not renewed for this long counts as spent until its holder returns."
    )
    renew_s: Seconds = Field(
        2.0, description="How often leases are renewed; changed limits take effect within this time."
    )
    idle_s: Seconds = Field(10.0, description="A lease unused for this long is returned.")
    database_timeout_ms: Count = Field(
        2000, description="Longest wait of a request for PostgreSQL; then it counts as unavailable."
    )
    max_wait_ms: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(
        10_000, description="How long a request waits for others to settle if it fits only then; then 429."
    )
    max_waiting: Count = Field(1024, description="Requests that wait like that at the same time; above it 429 at once.")
    max_callers: Count = Field(
        10_000,
        description="Callers that one replica follows. Above it the least recently used of which nothing must be "
        "remembered (running requests, a minute's usage) goes; if there is none, new ones get 429.",
    )
