"""`GET /v1/traces/{traceId}` and `GET /v1/traces`: traces as JSON.

Names are camelCase, times ISO 8601 with their zone, durations milliseconds. Costs are JSON numbers with all 9 digits:
they are formatted from decimals and never pass through a float. JSON columns are passed on as the text that PostgreSQL
returned, except `llm_calls`, whose costs are stored as strings and become numbers.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable, never an empty list.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Any, get_args, get_type_hints
from uuid import UUID

import orjson
from aiohttp import web

from proxy.api.bodies import dollars, json_answer
from proxy.api.caller import Caller
from proxy.api.exports import FORMAT, streamed
from proxy.api.paging import page
from proxy.api.parameters import AMOUNT, TIME, TRACE_ID, Parameter, integer, invalid, one_of, read_query, text
from proxy.api.shapes import BOOLEAN, CONDITIONAL, INTEGER, MOMENT, NUMBER, TEXT, Schema, describes, nullable, obj
from proxy.errors import InvalidRequest
from proxy.exchange import Outcome
from proxy.trace.store import TraceStore
from proxy.trace.stored import MAX_PAGE, Filters, StoredTrace

_DEFAULT_PAGE = 50
_FILTERS: Mapping[str, tuple[str, Parameter]] = {
    "from": ("since", TIME),
    "to": ("until", TIME),
    "projectId": ("project_id", text(256)),
    "userId": ("user_id", text(256)),
    "conversationId": ("conversation", text(256)),
    "model": ("model", text(256)),
    "requestType": ("request_type", text(64)),
    "outcome": ("outcome", one_of(get_args(Outcome))),
    "status": ("status", integer(100, 999)),
    "minCost": ("min_cost", AMOUNT),
}
_PARAMETERS = {name: parameter for name, (_, parameter) in _FILTERS.items()} | {
    "limit": integer(1, MAX_PAGE),
    "cursor": TRACE_ID,
    **FORMAT,
}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_ARRAY: Schema = {"type": "array", "items": {"type": "object"}}
_FORMS: Mapping[Any, Schema] = {
    UUID: {"type": "string", "format": "uuid"},
    datetime: MOMENT,
    str: TEXT,
    Outcome: {"type": "string", "enum": list(get_args(Outcome))},
    bool: BOOLEAN,
    int: INTEGER,
    float: NUMBER,
    Decimal: NUMBER,
}
_DOCUMENTS: Mapping[str, Schema] = {"routing_decisions": _ARRAY, "llm_calls": _ARRAY, "tool_calls": _ARRAY} | {
    name: {"type": ["object", "null"]} for name in ("error_info", "phases", "client", "quota", "policy")
}


def _form(name: str, kind: Any) -> Schema:
    """Return the schema of a column, derived from its type."""
    if name in _DOCUMENTS:
        return _DOCUMENTS[name]
    kinds = [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else [kind]
    form = _FORMS.get(kinds[0], TEXT)
    return nullable(form) if NoneType in get_args(kind) else form


_SHAPE = obj("Trace", **{_camel(name): _form(name, kind) for name, kind in get_type_hints(StoredTrace).items()})


class Traces:
    """Handlers of `/v1/traces`."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    @describes(_SHAPE, **CONDITIONAL)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return one trace."""
        read_query(request, {})
        trace_id = _parse_id(arguments["traceId"])
        trace = await self._store.get(trace_id)
        if trace is None or not caller.sees(trace.project_id):
            raise InvalidRequest(
                f"No trace {trace_id}. A trace can be read about a second after its request ended; while PostgreSQL "
                "is unavailable it waits in the journal. Traces past retention are deleted.",
                status=404,
                code="trace_not_found",
                param="traceId",
            )
        return json_answer(_document(trace))

    @describes(page("traces", _SHAPE), query=_PARAMETERS)
    async def search(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List traces, newest first."""
        values = read_query(request, _PARAMETERS)
        filters = Filters(**{_FILTERS[name][0]: value for name, value in values.items() if name in _FILTERS})
        if filters.since is not None and filters.until is not None and filters.since > filters.until:
            raise invalid("to", "`to` must not be before `from`: no trace can fit.")
        filters = replace(filters, project_id=caller.project(filters.project_id))
        if (wanted := values.get("format", "json")) != "json":
            return await self._export(filters, wanted, values)
        page = await self._store.search(filters, values.get("limit", _DEFAULT_PAGE), values.get("cursor"))
        return json_answer(
            {"traces": [_document(trace) for trace in page.traces], "nextCursor": page.cursor and str(page.cursor)}
        )

    async def _export(self, filters: Filters, wanted: str, values: Mapping[str, Any]) -> web.Response:
        """Return all matching traces, newest first. The first page is read before the response starts."""
        for name in ("limit", "cursor"):
            if name in values:
                raise InvalidRequest(
                    f"`{name}` is for pages; an export as {wanted} has none.", code="invalid_parameter", param=name
                )
        row = _document if wanted == "jsonl" else _line
        first = await self._store.search(filters, MAX_PAGE)

        async def pages() -> AsyncIterator[list[dict[str, Any]]]:
            page = first
            while True:
                yield [row(trace) for trace in page.traces]
                if page.cursor is None:
                    return
                page = await self._store.search(filters, MAX_PAGE, page.cursor)

        return streamed(pages(), _EXPORTED, wanted)


def _parse_id(value: str) -> UUID:
    try:
        parsed: UUID = TRACE_ID.parse(value)
    except ValueError:
        raise InvalidRequest(
            f"`traceId` must be {TRACE_ID.allowed}.", code="invalid_parameter", param="traceId"
        ) from None
    return parsed


def _document(trace: StoredTrace) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for column, name, show in _COLUMNS:
        value = getattr(trace, column)
        document[name] = value if show is None or value is None else show(value)
    return document


def _line(trace: StoredTrace) -> dict[str, Any]:
    """Return the CSV row of a trace: its plain columns, the number of calls and the error code."""
    document = {name: value for name, value in _document(trace).items() if name in _PLAIN}
    error = orjson.loads(trace.error_info) if trace.error_info else {}
    document["llmCalls"] = len(orjson.loads(trace.llm_calls))
    document["toolCalls"] = len(orjson.loads(trace.tool_calls))
    document["errorCode"] = error.get("code") if isinstance(error, dict) else None
    return document


def _calls(value: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = orjson.loads(value)
    for call in calls:
        if "cost" in call:
            call["cost"] = dollars(Decimal(call["cost"]))
    return calls


_SHOWN: Mapping[str, Callable[[Any], Any]] = {
    "id": str,
    "routing_decisions": orjson.Fragment,
    "llm_calls": _calls,
    "tool_calls": orjson.Fragment,
    "error_info": orjson.Fragment,
    "phases": orjson.Fragment,
    "client": orjson.Fragment,
    "quota": orjson.Fragment,
    "policy": orjson.Fragment,
    "total_cost": dollars,
}
_COLUMNS = tuple((field.name, _camel(field.name), _SHOWN.get(field.name)) for field in fields(StoredTrace))
_NESTED = {name for name in _SHOWN if name not in ("id", "total_cost")}
_PLAIN = [name for column, name, _ in _COLUMNS if column not in _NESTED]
_EXPORTED = (*_PLAIN, "llmCalls", "toolCalls", "errorCode")
