"""`/v1/analytics` and the endpoints below it: who spent what, where and why.

The members of `GET /v1/analytics` are a contract, because other people's dashboards read them. Everything else has an
endpoint of its own.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

from aiohttp import web

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api import analytics_documents as documents
from proxy.api import analytics_shapes as shapes
from proxy.api.analytics_query import (
    CACHE,
    EXPENSIVE,
    FILTERS,
    FINDINGS,
    RANGE,
    REBUILD,
    SERIES,
    SHARES,
    ask,
)
from proxy.api.bodies import json_answer
from proxy.api.caller import Caller
from proxy.api.exports import answer
from proxy.api.parameters import read_query
from proxy.api.shapes import CONDITIONAL, describes
from proxy.auth.audit import AuditLog
from proxy.errors import InvalidRequest

_EXPENSIVE_LIMIT: Final = 10
_NAMES_LIMIT: Final = 50
_SERIES_LIMIT: Final = 10


class AnalyticsApi:
    """Handlers of `/v1/analytics`."""

    def __init__(self, analytics: Analytics, rollup: Rollup, audit: AuditLog) -> None:
        self._analytics = analytics
        self._rollup = rollup
        self._audit = audit

    @describes(shapes.USAGE, query=FILTERS, **CONDITIONAL)
    async def usage(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return the totals of a time range, and their breakdown by layer, model and period."""
        values, question = ask(request, FILTERS, caller)
        return answer(values, documents.usage(await self._analytics.usage(question)))

    @describes(shapes.ERROR_RATE, query=FILTERS, **CONDITIONAL)
    async def error_rate(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return how many requests failed, and how many calls of each model."""
        values, question = ask(request, FILTERS, caller)
        return answer(values, documents.error_rate(await self._analytics.usage(question)))

    @describes(shapes.SERIES, query=SERIES, **CONDITIONAL)
    async def series(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return calls over time, one series for each model or layer."""
        values, question = ask(request, SERIES, caller)
        split, limit = values.get("by", "model"), values.get("limit", _SERIES_LIMIT)
        return answer(values, documents.series(await self._analytics.series(question, split, limit)))

    @describes(shapes.EXPENSIVE, query=EXPENSIVE, **CONDITIONAL)
    async def top_expensive(
        self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller
    ) -> web.Response:
        """List the most expensive requests."""
        values, question = ask(request, EXPENSIVE, caller)
        time_range, rows = await self._analytics.expensive(question, values.get("limit", _EXPENSIVE_LIMIT))
        return answer(
            values, {"timeRange": documents.time_range(time_range), "requests": [*map(documents.expensive, rows)]}
        )

    @describes(shapes.FINDINGS, query=FINDINGS, **CONDITIONAL)
    async def policy(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Count what the policy found, by rule and action."""
        values, question = ask(request, FINDINGS, caller)
        time_range, rows = await self._analytics.findings(question, values.get("limit", _NAMES_LIMIT))
        findings = [documents.findings(row) for row in rows]
        return answer(values, {"timeRange": documents.time_range(time_range), "findings": findings})

    @describes(shapes.CACHE, query=CACHE, **CONDITIONAL)
    async def cache(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return how many requests were answered from the cache."""
        values, question = ask(request, CACHE, caller)
        return answer(values, documents.cache(await self._analytics.usage(question)))

    @describes(shapes.LATENCY, query=RANGE, **CONDITIONAL)
    async def latency(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return percentiles of the duration and of the time to the first byte."""
        values, question = ask(request, RANGE, caller)
        return answer(values, documents.latency(await self._analytics.latency(question)))

    @describes(shapes.shares("UserShares", "users", "userId"), query=SHARES, **CONDITIONAL)
    async def users(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List the users who spent the most."""
        values, question = ask(request, SHARES, caller)
        time_range, rows = await self._analytics.users(question, values.get("limit", _NAMES_LIMIT))
        users = [documents.share("userId", row) for row in rows]
        return answer(values, {"timeRange": documents.time_range(time_range), "users": users})

    @describes(shapes.shares("ProjectShares", "projects", "projectId"), query=SHARES, **CONDITIONAL)
    async def projects(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List the projects that spent the most."""
        values, question = ask(request, SHARES, caller)
        time_range, rows = await self._analytics.projects(question, values.get("limit", _NAMES_LIMIT))
        projects = [documents.share("projectId", row) for row in rows]
        return answer(values, {"timeRange": documents.time_range(time_range), "projects": projects})

    @describes(shapes.CHECKED, query=REBUILD, required=("day",))
    async def check(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Compare the stored sums of one day with its traces."""
        day, project_id = self._day(request, caller)
        return json_answer(documents.checked(day, await self._rollup.check(day, project_id)))

    @describes(shapes.CHECKED, query=REBUILD, required=("day",))
    async def rebuild(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Recompute the sums of one day from its traces; return what was different."""
        day, project_id = self._day(request, caller)
        async with self._audit.change(caller.actor, "analytics.rebuild", project_id, day.isoformat()):
            rows = await self._rollup.rebuild(day, project_id)
        return json_answer(documents.checked(day, rows))

    def _day(self, request: web.BaseRequest, caller: Caller) -> tuple[date, str | None]:
        values = read_query(request, REBUILD, required=("day",))
        day: date = values["day"]
        if not self._rollup.has_traces_of(day):
            raise InvalidRequest(
                "Some or all traces of this day are past retention, so its sums cannot be recomputed.",
                code="traces_gone",
                param="day",
            )
        return day, caller.project(values.get("projectId"))
