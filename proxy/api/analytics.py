"""`/v1/analytics` and what stands below it: who spent what, where and why.

The members of `GET /v1/analytics` are a contract: dashboards of others read them. Whatever else is known has endpoints
of its own.

Failure mode: leaves of `errors`; a database that is away is 503.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

from aiohttp import web

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api import analytics_shapes as shapes
from proxy.api import analytics_shown as shown
from proxy.api.analytics_asked import (
    CACHE,
    EXPENSIVE,
    FILTERS,
    FINDINGS,
    RANGE,
    REBUILD,
    SERIES,
    SHARES,
    question,
    values_of,
)
from proxy.api.bodies import json_answer
from proxy.api.caller import Caller
from proxy.api.exports import answer
from proxy.api.shapes import CONDITIONAL, describes
from proxy.auth.audit import AuditLog
from proxy.errors import InvalidRequest

_DEAREST: Final = 10
_NAMES: Final = 50
_SERIES: Final = 10


class AnalyticsApi:
    """Handlers of the noun."""

    def __init__(self, analytics: Analytics, rollup: Rollup, audit: AuditLog) -> None:
        self._analytics = analytics
        self._rollup = rollup
        self._audit = audit

    @describes(shapes.USAGE, query=FILTERS, **CONDITIONAL)
    async def usage(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the sums of a range and their parts by layer, model and period."""
        values = values_of(request, FILTERS)
        return answer(values, shown.usage(await self._analytics.usage(question(values, caller))))

    @describes(shapes.ERROR_RATE, query=FILTERS, **CONDITIONAL)
    async def error_rate(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with how many requests, and how many calls of each model, failed."""
        values = values_of(request, FILTERS)
        return answer(values, shown.error_rate(await self._analytics.usage(question(values, caller))))

    @describes(shapes.SERIES, query=SERIES, **CONDITIONAL)
    async def series(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the course of calls over time, by model or layer."""
        values = values_of(request, SERIES)
        split, limit = values.get("by", "model"), values.get("limit", _SERIES)
        return answer(values, shown.series(await self._analytics.series(question(values, caller), split, limit)))

    @describes(shapes.EXPENSIVE, query=EXPENSIVE, **CONDITIONAL)
    async def top_expensive(
        self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller
    ) -> web.Response:
        """Answer with the dearest requests."""
        values = values_of(request, EXPENSIVE)
        time_range, rows = await self._analytics.expensive(question(values, caller), values.get("limit", _DEAREST))
        return answer(values, {"timeRange": shown.time_range(time_range), "requests": [*map(shown.expensive, rows)]})

    @describes(shapes.FINDINGS, query=FINDINGS, **CONDITIONAL)
    async def policy(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with what the policy found, by rule and action."""
        values = values_of(request, FINDINGS)
        time_range, rows = await self._analytics.findings(question(values, caller), values.get("limit", _NAMES))
        findings = [shown.findings(row) for row in rows]
        return answer(values, {"timeRange": shown.time_range(time_range), "findings": findings})

    @describes(shapes.CACHE, query=CACHE, **CONDITIONAL)
    async def cache(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with how many requests were answered from the cache."""
        values = values_of(request, CACHE)
        return answer(values, shown.cache(await self._analytics.usage(question(values, caller))))

    @describes(shapes.LATENCY, query=RANGE, **CONDITIONAL)
    async def latency(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with percentiles of durations and of times to the first byte."""
        values = values_of(request, RANGE)
        return answer(values, shown.latency(await self._analytics.latency(question(values, caller))))

    @describes(shapes.shares("UserShares", "users", "userId"), query=SHARES, **CONDITIONAL)
    async def users(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the users who spent most."""
        values = values_of(request, SHARES)
        time_range, rows = await self._analytics.users(question(values, caller), values.get("limit", _NAMES))
        users = [shown.share("userId", row) for row in rows]
        return answer(values, {"timeRange": shown.time_range(time_range), "users": users})

    @describes(shapes.shares("ProjectShares", "projects", "projectId"), query=SHARES, **CONDITIONAL)
    async def projects(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the projects that spent most."""
        values = values_of(request, SHARES)
        time_range, rows = await self._analytics.projects(question(values, caller), values.get("limit", _NAMES))
        projects = [shown.share("projectId", row) for row in rows]
        return answer(values, {"timeRange": shown.time_range(time_range), "projects": projects})

    @describes(shapes.CHECKED, query=REBUILD, required=("day",))
    async def check(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Compare the sums of one day with its traces."""
        day, project_id = self._day(request, caller)
        return json_answer(shown.checked(day, await self._rollup.check(day, project_id)))

    @describes(shapes.CHECKED, query=REBUILD, required=("day",))
    async def rebuild(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Make the sums of one day anew from its traces; answer with what was different."""
        day, project_id = self._day(request, caller)
        async with self._audit.change(caller.actor, "analytics.rebuild", project_id, day.isoformat()):
            rows = await self._rollup.rebuild(day, project_id)
        return json_answer(shown.checked(day, rows))

    def _day(self, request: web.BaseRequest, caller: Caller) -> tuple[date, str | None]:
        values = values_of(request, REBUILD)
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
