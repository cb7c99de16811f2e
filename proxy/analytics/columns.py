"""Shared parts of the analytics statements: lists of sums, the walk over projects, and rows as `Sums`."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from proxy.analytics.figures import Sums

_NANO: Final = -9
_REQUEST: Final = (
    "requests",
    "calls",
    "errors",
    "rejected",
    "aborted",
    "cache_hits",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_nanos",
    "timed",
    "duration_us",
)
_CALL: Final = (
    "call_errors",
    "call_input_tokens",
    "call_cached_tokens",
    "call_output_tokens",
    "call_cost_nanos",
    "call_timed",
    "call_duration_us",
)
_BY_PART: Final = ("layer_requests", "model_requests", "pair_requests")


def _summed(names: Iterable[str], sign: str = "") -> str:
    return ", ".join(f"sum({sign}{name})::bigint AS {name}" for name in names)


_PROJECTS: Final = """WITH RECURSIVE known AS (
    (SELECT project_id FROM {rows} AND $1::text IS NULL ORDER BY project_id LIMIT 1)
    UNION ALL
    SELECT (SELECT u.project_id FROM {rows} AND u.project_id > k.project_id ORDER BY u.project_id LIMIT 1)
    FROM known k WHERE k.project_id IS NOT NULL
), project AS MATERIALIZED (
    SELECT project_id FROM known WHERE project_id IS NOT NULL UNION ALL SELECT $1 WHERE $1 IS NOT NULL
)"""
_OF_USER: Final = "analytics_usage u WHERE u.kind = 'u' AND u.user_id = $0"
_PROJECTS_OF: Final = re.compile(r"\{projects of (\$\d+)\}")
_LISTS: Final = {
    "{projects}": _PROJECTS.replace("{rows}", "analytics_days u WHERE u.kind = 'p'"),
    "{columns}": ", ".join(_REQUEST),
    "{requests}": _summed(_REQUEST),
    "{calls}": _summed((*_BY_PART, *_CALL)),
    "{signed requests}": _summed(_REQUEST, "sign * "),
    "{signed calls}": _summed((*_BY_PART, *_CALL), "sign * "),
}


def filled(statement: str) -> str:
    """Return a statement with its placeholders replaced.

    `{projects}`: a WITH clause whose `project` has $1, or without it the projects that have sums; walks an index from
    name to name. `{projects of $4}`: only those in which a user has sums.
    `{columns}`: the columns of requests, including `calls`. `{requests}`: their sums. `{calls}`: sums of calls.
    `{signed requests}`, `{signed calls}`: the same, multiplied by the `sign` of each row.
    """
    for name, columns in _LISTS.items():
        statement = statement.replace(name, columns)
    return _PROJECTS_OF.sub(lambda found: _PROJECTS.replace("{rows}", _OF_USER.replace("$0", found[1])), statement)


def of_requests(row: Any) -> Sums:
    """Return the sums of requests from a row of `{requests}`."""
    return _sums(row[name] for name in _REQUEST)


def of_calls(row: Any, requests: int) -> Sums:
    """Return the sums of calls from a row of `{calls}`. `requests`: those that made at least one of them."""
    errors, *rest = (row[name] for name in _CALL)
    return _sums((requests, row["calls"], errors, 0, 0, 0, *rest))


def _sums(values: Iterable[int]) -> Sums:
    by_name = dict(zip(_REQUEST, values, strict=True))
    cost = Decimal(by_name.pop("cost_nanos")).scaleb(_NANO)
    return Sums(cost=cost, **by_name)
