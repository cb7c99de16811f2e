"""The most expensive requests of a range, while their traces are kept. Exact to the moment."""

from collections.abc import Sequence
from typing import Final

from proxy.analytics.figures import Expensive, Question, TimeRange
from proxy.analytics.ranges import resolve
from proxy.db.transaction import Connection

_EXPENSIVE: Final = """
SELECT id::text, created_at, project_id, user_id, request_type, model, outcome, jsonb_array_length(llm_calls),
    input_tokens, output_tokens, total_cost, total_duration_ms
FROM request_traces
WHERE created_at >= $2 AND created_at < $3 AND total_cost > 0
    AND ($1::text IS NULL OR project_id = $1)
    AND ($4::text IS NULL OR user_id = $4)
    AND ($5::text IS NULL OR model = $5)
    AND ($6::text IS NULL OR request_type = $6)
ORDER BY total_cost DESC, created_at DESC, id
LIMIT $7
"""


async def read_expensive(
    connection: Connection, question: Question, limit: int
) -> tuple[TimeRange, Sequence[Expensive]]:
    """Return at most `limit` requests, the most expensive first."""
    question, time_range = await resolve(connection, question)
    rows = await connection.fetch(
        _EXPENSIVE,
        question.project_id,
        time_range.start,
        time_range.end,
        question.user_id,
        question.model,
        question.request_type,
        limit,
    )
    return time_range, [Expensive(*row.values()) for row in rows]
