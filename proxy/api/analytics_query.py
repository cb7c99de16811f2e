"""The query parameters of analytics, and the `Question` they become.

Failure mode: InvalidRequest naming every mistake; 404 for a project that is not the caller's.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final, get_args

from aiohttp import web

from proxy.analytics.figures import Period, Question
from proxy.analytics.series import Split
from proxy.api.caller import Caller
from proxy.api.exports import FORMAT
from proxy.api.parameters import DAY, EDGE, Parameter, integer, one_of, read_query, text
from proxy.errors import InvalidRequest

_MAX_ROWS: Final = 500
_MAX_SERIES: Final = 50
RANGE: Final[Mapping[str, Parameter]] = {
    **FORMAT,
    "projectId": text(256),
    "userId": text(256),
    "requestType": text(64),
    "startDate": EDGE,
    "endDate": EDGE,
}
_GROUPED: Final = {"groupBy": one_of(get_args(Period))}
FILTERS: Final = {**RANGE, **_GROUPED, "model": text(256), "layer": text(64)}
_LIMITED: Final = {**RANGE, "limit": integer(1, _MAX_ROWS)}
EXPENSIVE: Final = {**_LIMITED, "model": text(256)}
SHARES: Final = {name: parameter for name, parameter in _LIMITED.items() if name != "userId"}
CACHE: Final = {**RANGE, **_GROUPED}
FINDINGS: Final = {name: one for name, one in SHARES.items() if name != "requestType"}
SERIES: Final = {**RANGE, **_GROUPED, "by": one_of(get_args(Split)), "limit": integer(1, _MAX_SERIES)}
REBUILD: Final = {"day": DAY, "projectId": text(256)}
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


def ask(request: web.BaseRequest, known: Mapping[str, Parameter], caller: Caller) -> tuple[dict[str, Any], Question]:
    """Return the parameters of a request by name, and what they ask within what the caller may see.

    Raises:
        InvalidRequest: a parameter is wrong, the range ends before it begins, or (404) the project is another's.
    """
    values = read_query(request, known)
    since, until = values.get("startDate"), values.get("endDate")
    if isinstance(since, datetime) and isinstance(until, datetime):
        backwards = since >= until
    else:
        backwards = since is not None and until is not None and _date(since) > _date(until)
    if backwards:
        raise InvalidRequest("`endDate` must be after `startDate`.", code="invalid_parameter", param="endDate")
    asked = Question(**{_MEMBERS[name]: value for name, value in values.items() if name in _MEMBERS})
    return values, replace(asked, project_id=caller.project(asked.project_id))


def _date(edge: date) -> date:
    return edge.date() if isinstance(edge, datetime) else edge
