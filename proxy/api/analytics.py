"""`/v1/analytics` and what stands below it: who spent what, where and why.

The members of `GET /v1/analytics` are a contract: dashboards of others read them. Whatever else is known has endpoints
of its own. Money leaves as a JSON number with 9 digits and never passes through a float; rates are parts of 1.

A user's and a model's name become member names as they are; of very many models the dearest are shown.

Failure mode: leaves of `errors`; a database that is away is 503.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any, Final, get_args

import orjson
from aiohttp import web

from proxy.analytics.figures import (
    Expensive,
    Latency,
    Measure,
    Percentiles,
    Period,
    Question,
    Share,
    Sums,
    TimeRange,
    Usage,
)
from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import DayCheck, Rollup
from proxy.api.caller import Caller
from proxy.api.parameters import DAY, EDGE, Parameter, integer, one_of, read, text
from proxy.auth.audit import AuditLog
from proxy.errors import InvalidRequest

_MAX_NAMES: Final = 1000
_MAX_ROWS: Final = 500
_RANGE: Final[Mapping[str, Parameter]] = {
    "projectId": text(256),
    "userId": text(256),
    "requestType": text(64),
    "startDate": EDGE,
    "endDate": EDGE,
}
_FILTERS: Final = {**_RANGE, "model": text(256), "layer": text(64), "groupBy": one_of(get_args(Period))}
_LIMITED: Final = {**_RANGE, "limit": integer(1, _MAX_ROWS)}
_EXPENSIVE: Final = {**_LIMITED, "model": text(256)}
_SHARES: Final = {name: parameter for name, parameter in _LIMITED.items() if name != "userId"}
_REBUILD: Final = {"day": DAY, "projectId": text(256)}
_MEMBERS: Final = {
    "projectId": "project_id",
    "userId": "user_id",
    "requestType": "request_type",
    "startDate": "since",
    "endDate": "until",
    "model": "model",
    "layer": "layer",
    "groupBy": "period",
}


class AnalyticsApi:
    """Handlers of the noun."""

    def __init__(self, analytics: Analytics, rollup: Rollup, audit: AuditLog) -> None:
        self._analytics = analytics
        self._rollup = rollup
        self._audit = audit

    async def usage(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the sums of a range and their parts by layer, model and period."""
        return _json(_usage(await self._analytics.usage(_question(_read(request, _FILTERS), caller))))

    async def error_rate(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with how many requests, and how many calls of each model, failed."""
        return _json(_error_rate(await self._analytics.usage(_question(_read(request, _FILTERS), caller))))

    async def top_expensive(
        self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller
    ) -> web.Response:
        """Answer with the dearest requests."""
        values = _read(request, _EXPENSIVE)
        time_range, rows = await self._analytics.expensive(_question(values, caller), values.get("limit", 10))
        return _json({"timeRange": _range(time_range), "requests": [_expensive(row) for row in rows]})

    async def latency(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with percentiles of durations and of times to the first byte."""
        return _json(_latency(await self._analytics.latency(_question(_read(request, _RANGE), caller))))

    async def users(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the users who spent most."""
        values = _read(request, _SHARES)
        time_range, rows = await self._analytics.users(_question(values, caller), values.get("limit", 50))
        return _json({"timeRange": _range(time_range), "users": [_share("userId", row) for row in rows]})

    async def projects(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the projects that spent most."""
        values = _read(request, _SHARES)
        time_range, rows = await self._analytics.projects(_question(values, caller), values.get("limit", 50))
        return _json({"timeRange": _range(time_range), "projects": [_share("projectId", row) for row in rows]})

    async def check(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Compare the sums of one day with its traces."""
        day, project_id = self._day(request, caller)
        return _json(_checked(day, await self._rollup.check(day, project_id)))

    async def rebuild(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Make the sums of one day anew from its traces; answer with what was different."""
        day, project_id = self._day(request, caller)
        async with self._audit.change(caller.actor, "analytics.rebuild", project_id, day.isoformat()):
            rows = await self._rollup.rebuild(day, project_id)
        return _json(_checked(day, rows))

    def _day(self, request: web.BaseRequest, caller: Caller) -> tuple[date, str | None]:
        values = read(_query(request), _REBUILD)
        if "day" not in values:
            raise InvalidRequest("`day` is missing.", code="invalid_parameter", param="day")
        day: date = values["day"]
        if not self._rollup.has_traces_of(day):
            raise InvalidRequest(
                "The traces of this day are past retention, wholly or in part: its sums are all that is left.",
                code="traces_gone",
                param="day",
            )
        return day, caller.project(values.get("projectId"))


def _query(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[2]


def _read(request: web.BaseRequest, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the parameters of a question; refuse a range that ends before it begins."""
    values = read(_query(request), known)
    since, until = values.get("startDate"), values.get("endDate")
    if isinstance(since, datetime) and isinstance(until, datetime):
        backwards = since >= until
    else:
        backwards = since is not None and until is not None and _date(since) > _date(until)
    if backwards:
        raise InvalidRequest("`endDate` must be after `startDate`.", code="invalid_parameter", param="endDate")
    return values


def _date(edge: date) -> date:
    return edge.date() if isinstance(edge, datetime) else edge


def _question(values: Mapping[str, Any], caller: Caller) -> Question:
    question = Question(**{_MEMBERS[name]: value for name, value in values.items() if name in _MEMBERS})
    return replace(question, project_id=caller.project(question.project_id))


def _usage(usage: Usage) -> dict[str, Any]:
    total = usage.total
    return {
        "timeRange": _range(usage.time_range),
        "totalRequests": total.requests,
        "totalTokens": _tokens(total),
        "totalCost": _amount(total.cost),
        "breakdown": {
            "byLayer": {
                layer: {
                    "requests": sums.requests,
                    "tokens": sums.tokens,
                    "cost": _amount(sums.cost),
                    "avgDurationMs": sums.average_ms,
                    "successRate": _rate(sums.calls - sums.errors, sums.calls),
                }
                for layer, sums in usage.by_layer.items()
            },
            "byModel": {
                model: {
                    "requests": sums.requests,
                    "tokens": _tokens(sums),
                    "cost": _amount(sums.cost),
                    "avgDurationMs": sums.average_ms,
                    "errors": sums.errors,
                }
                for model, sums in islice(usage.by_model.items(), _MAX_NAMES)
            },
            "byDay": [
                {
                    "date": period.isoformat(),
                    "requests": sums.requests,
                    "tokens": sums.tokens,
                    "cost": _amount(sums.cost),
                    "avgDurationMs": sums.average_ms,
                }
                for period, sums in usage.by_period.items()
            ],
        },
    }


def _error_rate(usage: Usage) -> dict[str, Any]:
    total = usage.total
    return {
        "timeRange": _range(usage.time_range),
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
            for model, sums in islice(usage.by_model.items(), _MAX_NAMES)
        },
        "byDay": [
            {
                "date": period.isoformat(),
                "requests": sums.requests,
                "errors": sums.errors,
                "errorRate": _rate(sums.errors, sums.requests),
            }
            for period, sums in usage.by_period.items()
        ],
    }


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "timeRange": _range(latency.time_range),
        **_measures(latency.total),
        "byLayer": {name: _measures(found) for name, found in latency.by_layer.items()},
        "byModel": {name: _measures(found) for name, found in islice(latency.by_model.items(), _MAX_NAMES)},
    }


def _measures(found: Mapping[Measure, Percentiles]) -> dict[str, Any]:
    return {
        "durationMs": _percentiles(found.get("duration", Percentiles())),
        "firstByteMs": _percentiles(found.get("first_byte", Percentiles())),
    }


def _percentiles(found: Percentiles) -> dict[str, Any]:
    return {"count": found.number, "p50": found.p50, "p95": found.p95, "p99": found.p99}


def _share(member: str, share: Share) -> dict[str, Any]:
    sums = share.sums
    return {
        member: share.name,
        "requests": sums.requests,
        "calls": sums.calls,
        "errors": sums.errors,
        "rejected": sums.rejected,
        "aborted": sums.aborted,
        "cacheHits": sums.cache_hits,
        "tokens": {**_tokens(sums), "cachedInput": sums.cached_input_tokens},
        "cost": _amount(sums.cost),
        "avgDurationMs": sums.average_ms,
    }


def _expensive(row: Expensive) -> dict[str, Any]:
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
        "cost": _amount(row.cost),
        "durationMs": row.duration_ms,
    }


def _checked(day: date, rows: Any) -> dict[str, Any]:
    return {"day": day.isoformat(), "projects": [_check(row) for row in rows]}


def _check(row: DayCheck) -> dict[str, Any]:
    return {
        "projectId": row.project_id,
        "differences": row.wrong,
        "kept": {"requests": row.kept_requests, "tokens": row.kept_tokens, "cost": _amount(row.kept_cost)},
        "counted": {
            "requests": row.counted_requests,
            "tokens": row.counted_tokens,
            "cost": _amount(row.counted_cost),
        },
    }


def _range(time_range: TimeRange) -> dict[str, datetime]:
    return {"start": time_range.start, "end": time_range.end}


def _tokens(sums: Sums) -> dict[str, int]:
    return {"input": sums.input_tokens, "output": sums.output_tokens, "total": sums.tokens}


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _amount(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(f"{value:.9f}")


def _json(document: Any) -> web.Response:
    return web.Response(
        body=orjson.dumps(document, option=orjson.OPT_UTC_Z),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
