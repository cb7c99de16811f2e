"""A trace as read back: one row of `request_traces`, and the filters of a search.

JSON columns stay text as returned by PostgreSQL, so that they are not parsed again. Amounts are exact decimals. `None`
in a column means unknown (rejected before that phase, or interrupted).
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from proxy.exchange import Outcome, UsageSource

MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """One row, in the order of the columns. Fields ending in `_ms` are milliseconds."""

    id: UUID
    created_at: datetime
    """Start of the request: the time inside `id`."""
    conversation_id: str | None
    conversation_ref: str | None
    request_type: str
    operation: str
    method: str | None
    path: str | None
    user_id: str | None
    project_id: str | None
    model: str | None
    """Requested by the client; `response_model` is what the provider reports."""
    response_model: str | None
    upstream: str | None
    stream: bool | None
    status: int | None
    """Sent to the client, `None` if nothing was."""
    outcome: Outcome
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_source: UsageSource
    total_cost: Decimal
    """Dollars with 9 digits."""
    total_duration_ms: float | None
    first_byte_ms: float | None
    upstream_ms: float | None
    overhead_ms: float | None
    request_bytes: int | None
    response_bytes: int | None
    upstream_request_id: str | None
    routing_decisions: str
    llm_calls: str
    tool_calls: str
    error_info: str | None
    phases: str | None
    client: str | None
    quota: str | None
    """The window that admitted the request, and the leases that cover its charge."""
    policy: str | None
    """What was scanned and found."""
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a search; `None`: no filter. Texts are compared exactly, never as patterns."""

    since: datetime | None = None
    """Inclusive start of the time range, by the start of the request."""
    until: datetime | None = None
    """Exclusive end."""
    project_id: str | None = None
    user_id: str | None = None
    conversation: str | None = None
    """The client's own reference, or the `conversations.id`."""
    model: str | None = None
    request_type: str | None = None
    outcome: str | None = None
    status: int | None = None
    min_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, newest first. `cursor`: start of the next page, `None` on the last one."""

    traces: tuple[StoredTrace, ...]
    cursor: UUID | None


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a record that PostgreSQL refused."""

    received_at: datetime
    trace_id: UUID
    kind: int | None
    """As in the journal; `None`: kept by a version that did not note it, and cannot be stored."""
    is_charged: bool
    """Its usage is in the quota, though its trace is not stored."""
    reason: str
