"""`/v1/route` and `/v1/sidegate/upstreams`: what would be done with a request, and how the providers are.

The body of `/v1/route` is that of the request in question: chat completions, or with `input` of a response, with
`prompt` of a completion. Hints and caller stand in the headers, as they would there; where they name nobody, a key
asks for its own user and project. Nobody is called and nothing is reserved; what is refused there is refused here,
with the same error. A key asks about its own project only: another is 404.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.api.bodies import json_answer, read_body
from proxy.api.caller import Caller
from proxy.auth.admission import check_model
from proxy.auth.identify import identify, with_body_hint
from proxy.config.schema import Config
from proxy.exchange import Inbound, ParsedRequest, Principal, first_values
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.planner import Planner
from proxy.projects.directory import Directory
from proxy.routing.health import Health

_PATHS: Final = {"messages": "/v1/chat/completions", "input": "/v1/responses", "prompt": "/v1/completions"}


class RoutingApi:
    """Handlers of the nouns."""

    def __init__(self, config: Config, planner: Planner, health: Health, projects: Directory) -> None:
        self._config = config
        self._planner = planner
        self._health = health
        self._projects = projects

    async def explain(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with the decision for a request's body."""
        body = await read_body(request, self._config.limits.json_body_bytes)
        inbound = self._inbound(request, body)
        parsed = parse_json(body, inbound.operation, limits=self._config.limits, force_stream_usage=False)
        principal = self._principal(inbound, parsed, caller)
        plan = self._planner.plan(inbound, parsed, principal, self._projects.get(principal.project_id))
        who = {"userId": principal.user_id, "projectId": principal.project_id}
        return json_answer({**who, **self._planner.explain(inbound, parsed, principal, plan)})

    async def upstreams(
        self, _request: web.BaseRequest, _arguments: Mapping[str, str], _caller: Caller
    ) -> web.Response:
        """Answer with the state of every credential of every provider."""
        return json_answer({"upstreams": list(self._health.describe(time.monotonic()))})

    def _principal(self, inbound: Inbound, parsed: ParsedRequest, caller: Caller) -> Principal:
        """Return whose request it would be. Raises 404 for a project that is not the caller's, 403 for the model."""
        identity = self._config.identity
        if caller.project_id is not None:
            own = {"default_user": caller.user_id, "default_project": caller.project_id}
            identity = identity.model_copy(update=own)
        principal = with_body_hint(identify(inbound.fields, identity), parsed.user_hint)
        caller.check_sees(principal.project_id)
        principal = replace(principal, models=caller.models)
        check_model(principal, parsed.model, billable=inbound.operation.billable)
        return principal

    def _inbound(self, request: web.BaseRequest, body: bytes) -> Inbound:
        headers = request.raw_headers
        path = _path(body)
        return Inbound(
            method="POST",
            target=path,
            path=path,
            headers=headers,
            fields=first_values(headers),
            operation=match("POST", path, upgrade=False),
            peer=request.remote,
            content_length=len(body),
            has_body=True,
        )


def _path(body: bytes) -> str:
    """Return the endpoint that a body is for; a body that cannot be read is refused later, with its reason."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    named = document if isinstance(document, dict) else {}
    return next((path for member, path in _PATHS.items() if member in named), _PATHS["messages"])
