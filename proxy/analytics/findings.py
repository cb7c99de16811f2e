"""Findings of the policy, by rule and action, over whole days."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.analytics.figures import Question, TimeRange
from proxy.analytics.ranges import whole_days
from proxy.db.transaction import Connection

# $1 project, $2 the first day, $3 the day after the last, $4 how many.
_FINDINGS: Final = """
SELECT rule, category, action, direction, sum(findings)::bigint AS findings, sum(requests)::bigint AS requests
FROM analytics_findings
WHERE ($1::text IS NULL OR project_id = $1) AND day >= $2 AND day < $3
GROUP BY rule, category, action, direction
ORDER BY findings DESC, rule, category, action, direction
LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings of one rule with the same action."""

    rule: str
    """Empty: findings beyond the number that a trace keeps, which are only counted."""
    category: str
    action: str
    direction: str
    findings: int
    requests: int
    """Traces with at least one of them."""


async def read_findings(connection: Connection, question: Question, limit: int) -> tuple[TimeRange, Sequence[Findings]]:
    """Return at most `limit` kinds of findings, most frequent first."""
    days = await whole_days(connection, question)
    rows = await connection.fetch(_FINDINGS, question.project_id, days.first, days.past, limit)
    return days.time_range, [Findings(*row.values()) for row in rows]
