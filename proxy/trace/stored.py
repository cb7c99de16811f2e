"""A trace as it is read back: one row of `request_traces`, and what a search asks for.

JSON columns stay the text that PostgreSQL gave: whoever shows them passes them on without a second parse. Amounts are
exact decimals. `None` in a column means that the trace does not know it (rejected before that phase, or interrupted).
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
    """Asked for by the client; `response_model` is what the provider says it used."""
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
    """Window that admitted the request, and the leases that bear its charge."""
    policy: str | None
    """What was scanned and found."""
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search asks for; `None` asks for nothing. Every text is compared as it is, never as a pattern."""

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
    """Traces from new to old. `cursor`: where the next page begins, `None` on the last one."""

    traces: tuple[StoredTrace, ...]
    cursor: UUID | None
