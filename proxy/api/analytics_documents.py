"""Analytics as JSON: names in camelCase, money as numbers with 9 digits, rates from 0 to 1.

Rule of the file: pure. Names of users and models become member names unchanged; of more than a thousand models only
the most expensive are shown.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import islice
from typing import Any, Final

from proxy.analytics.figures import Expensive, Latency, Measure, Percentiles, Share, Sums, TimeRange, Usage
from proxy.analytics.findings import Findings
from proxy.analytics.rollup import DayCheck
from proxy.analytics.series import Series
from proxy.api.bodies import dollars

_MAX_NAMES: Final = 1000


def usage(found: Usage) -> dict[str, Any]:
    """Return the answer of `GET /v1/analytics`; its members are a contract."""
    total = found.total
    return {
        "timeRange": time_range(found.time_range),
        "totalRequests": total.requests,
        "totalTokens": _tokens(total),
        "totalCost": dollars(total.cost),
        "breakdown": {
            "byLayer": {
                layer: {
                    "requests": sums.requests,
                    "tokens": sums.tokens,
                    "cost": dollars(sums.cost),
                    "avgDurationMs": sums.average_ms,
                    "successRate": _rate(sums.calls - sums.errors, sums.calls),
                }
                for layer, sums in found.by_layer.items()
            },
            "byModel": {
                model: {
                    "requests": sums.requests,
                    "tokens": _tokens(sums),
                    "cost": dollars(sums.cost),
                    "avgDurationMs": sums.average_ms,
                    "errors": sums.errors,
                }
                for model, sums in islice(found.by_model.items(), _MAX_NAMES)
            },
            "byDay": [
                {
                    "date": period.isoformat(),
                    "requests": sums.requests,
                    "tokens": sums.tokens,
                    "cost": dollars(sums.cost),
                    "avgDurationMs": sums.average_ms,
                }
                for period, sums in found.by_period.items()
            ],
        },
    }


def error_rate(found: Usage) -> dict[str, Any]:
    """Return how many requests failed, and how many calls of each model."""
    total = found.total
    return {
        "timeRange": time_range(found.time_range),
        "totalRequests": total.requests,
        "errors": total.errors,
        "rejected": total.rejected,
        "aborted": total.aborted,
        "errorRate": _rate(total.errors, total.requests),
        "byModel": {
            model: {
                "requests": sums.requests,
                "calls": sums.calls,
                "errors": sums.errors,
                "errorRate": _rate(sums.errors, sums.calls),
            }
            for model, sums in islice(found.by_model.items(), _MAX_NAMES)
        },
        "byDay": [
            {
                "date": period.isoformat(),
                "requests": sums.requests,
                "errors": sums.errors,
                "errorRate": _rate(sums.errors, sums.requests),
            }
            for period, sums in found.by_period.items()
        ],
    }


def series(found: Series) -> dict[str, Any]:
    """Return sums of calls over time, one series for each name."""
    return {
        "timeRange": time_range(found.time_range),
        "series": [{"name": name, "points": _points(points)} for name, points in found.by_name.items()],
        "other": _points(found.other),
    }


def _points(points: Mapping[date, Sums]) -> list[dict[str, Any]]:
    return [
        {
            "date": period.isoformat(),
            "requests": sums.requests,
            "calls": sums.calls,
            "errors": sums.errors,
            "tokens": _tokens(sums),
            "cost": dollars(sums.cost),
            "avgDurationMs": sums.average_ms,
        }
        for period, sums in points.items()
    ]


def cache(found: Usage) -> dict[str, Any]:
    """Return how many requests were answered from the cache."""
    total = found.total
    return {
        "timeRange": time_range(found.time_range),
        "totalRequests": total.requests,
        "cacheHits": total.cache_hits,
        "hitRate": _rate(total.cache_hits, total.requests),
        "byDay": [
            {
                "date": period.isoformat(),
                "requests": sums.requests,
                "cacheHits": sums.cache_hits,
                "hitRate": _rate(sums.cache_hits, sums.requests),
            }
            for period, sums in found.by_period.items()
        ],
    }


def findings(row: Findings) -> dict[str, Any]:
    """Return what one rule found, and what was done about it."""
    return {
        "rule": row.rule,
        "category": row.category,
        "action": row.action,
        "direction": row.direction,
        "findings": row.findings,
        "requests": row.requests,
    }


def latency(found: Latency) -> dict[str, Any]:
    """Return percentiles: overall, by layer and by model."""
    return {
        "timeRange": time_range(found.time_range),
        **_measures(found.total),
        "byLayer": {name: _measures(one) for name, one in found.by_layer.items()},
        "byModel": {name: _measures(one) for name, one in islice(found.by_model.items(), _MAX_NAMES)},
    }


def _measures(found: Mapping[Measure, Percentiles]) -> dict[str, Any]:
    return {
        "durationMs": _percentiles(found.get("duration", Percentiles())),
        "firstByteMs": _percentiles(found.get("first_byte", Percentiles())),
    }


def _percentiles(found: Percentiles) -> dict[str, Any]:
    return {"count": found.number, "p50": found.p50, "p95": found.p95, "p99": found.p99}


def share(member: str, found: Share) -> dict[str, Any]:
    """Return the share of one user or project. `member`: `userId` or `projectId`."""
    sums = found.sums
    return {
        member: found.name,
        "requests": sums.requests,
        "calls": sums.calls,
        "errors": sums.errors,
        "rejected": sums.rejected,
        "aborted": sums.aborted,
        "cacheHits": sums.cache_hits,
        "tokens": {**_tokens(sums), "cachedInput": sums.cached_input_tokens},
        "cost": dollars(sums.cost),
        "avgDurationMs": sums.average_ms,
    }


def expensive(row: Expensive) -> dict[str, Any]:
    """Return one of the most expensive requests."""
    return {
        "traceId": row.trace_id,
        "createdAt": row.created_at,
        "projectId": row.project_id,
        "userId": row.user_id,
        "requestType": row.request_type,
        "model": row.model,
        "outcome": row.outcome,
        "calls": row.calls,
        "tokens": {
            "input": row.input_tokens or 0,
            "output": row.output_tokens or 0,
            "total": (row.input_tokens or 0) + (row.output_tokens or 0),
        },
        "cost": dollars(row.cost),
        "durationMs": row.duration_ms,
    }


def checked(day: date, rows: Iterable[DayCheck]) -> dict[str, Any]:
    """Return how the sums and the traces of one day compare."""
    return {"day": day.isoformat(), "projects": [_check(row) for row in rows]}


def _check(row: DayCheck) -> dict[str, Any]:
    return {
        "projectId": row.project_id,
        "differences": row.wrong,
        "kept": {"requests": row.kept_requests, "tokens": row.kept_tokens, "cost": dollars(row.kept_cost)},
        "counted": {
            "requests": row.counted_requests,
            "tokens": row.counted_tokens,
            "cost": dollars(row.counted_cost),
        },
    }


def time_range(found: TimeRange) -> dict[str, datetime]:
    """Return a time range; its end is excluded."""
    return {"start": found.start, "end": found.end}


def _tokens(sums: Sums) -> dict[str, int]:
    return {"input": sums.input_tokens, "output": sums.output_tokens, "total": sums.tokens}


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
