"""`/v1/route` and `/v1/sidegate/upstreams`: how a request would be routed, and the state of the providers.

The body of `/v1/route` is the body of the request in question: a chat completion, a response (with `input`) or a
completion (with `prompt`). Hints and identity come from the same headers as there; where they name nobody, a key asks
for its own user and project. No provider is called and nothing is reserved. Whatever would refuse the request refuses
it here with the same error, except the policy, whose verdict is part of the response. A key can ask about its own
project only; any other is 404.

Bodies above `limits.json_thread_bytes` are refused with 413: they are decoded on the event loop, and their memory is
not in the budget of the data plane's bodies.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.api.bodies import json_answer, read_body
from proxy.api.caller import Caller
from proxy.api.parameters import read_query
from proxy.api.policy import FINDING, UNSCANNED, finding_document, unscanned_document
from proxy.api.shapes import ANY, BOOLEAN, INTEGER, NUMBER, OBJECT, TEXT, array, by_name, describes, nullable, obj
from proxy.auth.admission import check_model, check_operation
from proxy.auth.identify import identify, with_body_hint
from proxy.config.project import ProjectSettings
from proxy.config.schema import Config
from proxy.event_loop.off_loop import off_loop
from proxy.exchange import Inbound, ParsedRequest, Principal, first_values
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.assurance import promised
from proxy.phases.planner import Planner
from proxy.policy.dry_run import dry_run
from proxy.policy.ready import Policies
from proxy.projects.directory import Directory
from proxy.routing.health import Health

_PATHS: Final = {"messages": "/v1/chat/completions", "input": "/v1/responses", "prompt": "/v1/completions"}

_NAMES: Final = {"upstream": nullable(TEXT), "model": nullable(TEXT), "layer": nullable(TEXT)}
_EXPLAINED: Final = obj(
    "Route",
    userId=TEXT,
    projectId=TEXT,
    **_NAMES,
    reason=TEXT,
    complexity=ANY,
    candidates=array(OBJECT),
    rejected=array(obj(**_NAMES, why=TEXT)),
    estimate=nullable(
        obj(inputTokens=INTEGER, outputTokens=INTEGER, maxOutputTokens=INTEGER, cost=NUMBER, maxCost=NUMBER)
    ),
    quota=obj(leftCost=nullable(NUMBER), allows=BOOLEAN),
    answer=obj(autoEscalate=BOOLEAN, crossCheck=BOOLEAN),
    policy=obj(
        version=TEXT,
        scanned=BOOLEAN,
        action=TEXT,
        findings=array(obj(**FINDING)),
        unscanned=array(UNSCANNED),
    ),
)
_UPSTREAM: Final = obj(
    "Upstream",
    upstream=TEXT,
    credential=INTEGER,
    weight=NUMBER,
    state=TEXT,
    inFlight=INTEGER,
    eligibleInSeconds=NUMBER,
    coolingModels=by_name(NUMBER),
    outcomes=OBJECT,
)
_HINTS: Final = (
    "X-Sidegate-User",
    "X-Sidegate-Project",
    "OpenAI-Project",
    "X-Sidegate-Layer",
    "X-Sidegate-Cross-Check",
)


class RoutingApi:
    """Handlers of `/v1/route` and `/v1/sidegate/upstreams`."""

    def __init__(
        self, config: Config, planner: Planner, health: Health, projects: Directory, policies: Policies
    ) -> None:
        self._config = config
        self._policies = policies
        self._planner = planner
        self._health = health
        self._projects = projects

    @describes(_EXPLAINED, body=OBJECT, headers=_HINTS, refuses=(404,))
    async def explain(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Explain how a request with this body would be routed."""
        read_query(request, {})
        body = await read_body(request, self._config.limits.json_thread_bytes)
        inbound = self._inbound(request, body)
        parsed = parse_json(body, inbound.operation, limits=self._config.limits, force_stream_usage=False)
        principal = self._principal(inbound, parsed, caller)
        project = self._projects.active(principal.project_id)
        plan = self._planner.plan(inbound, parsed, principal, project)
        who = {"userId": principal.user_id, "projectId": principal.project_id}
        decision = self._planner.explain(inbound, parsed, principal, plan)
        answer = promised(inbound, parsed, plan, project.features)
        return json_answer({**who, **decision, "answer": answer, "policy": await self._verdict(parsed, project)})

    @describes(obj(upstreams=array(_UPSTREAM)))
    async def upstreams(self, request: web.BaseRequest, _arguments: Mapping[str, str], _caller: Caller) -> web.Response:
        """Return the state of every credential of every provider."""
        read_query(request, {})
        return json_answer({"upstreams": list(self._health.describe(time.monotonic()))})

    def _principal(self, inbound: Inbound, parsed: ParsedRequest, caller: Caller) -> Principal:
        """Return whose request it would be. Raises 404 for a project that is not the caller's, 403 for its scopes.

        Under `auth.mode: keys` the key alone names the user; headers and body do not.
        """
        identity, by_key = self._config.identity, self._config.auth.mode == "keys"
        if caller.project_id is not None:
            own = {"default_user": caller.user_id, "default_project": caller.project_id}
            identity = identity.model_copy(update=own)
        principal = identify(inbound.fields, identity)
        caller.check_sees(principal.project_id)
        if not by_key:
            principal = with_body_hint(principal, parsed.user_hint)
        elif caller.user_id is not None:
            principal = replace(principal, user_id=caller.user_id, source="key")
        check_operation(caller.operations, inbound.operation)
        principal = replace(principal, models=caller.models)
        check_model(principal, parsed.model, billable=inbound.operation.billable)
        return principal

    async def _verdict(self, parsed: ParsedRequest, project: ProjectSettings) -> dict[str, Any]:
        """Return what the policy would do with the prompt, and why, without any of its text."""
        policy, settings = await self._policies.get(project.security), self._config.policy
        if not policy.scan_prompts:
            return {"version": policy.version, "scanned": False, "action": "allow", "findings": [], "unscanned": []}
        ran = await off_loop(partial(dry_run, policy, parsed.document, "prompt", settings))
        return {
            "version": ran.version,
            "scanned": True,
            "action": ran.action,
            "findings": [*map(finding_document, ran.sightings[: settings.max_findings])],
            "unscanned": [*map(unscanned_document, ran.unscanned[: settings.max_findings])],
        }

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
    """Return the endpoint that a body is for. An unreadable body is refused later, with a better error."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    named = document if isinstance(document, dict) else {}
    return next((path for member, path in _PATHS.items() if member in named), _PATHS["messages"])
