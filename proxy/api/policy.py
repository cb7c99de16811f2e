"""`POST /v1/sidegate/policy/test`: what a project's policy would do with a text or a request body.

A dry run: no provider is called; nothing is recorded, counted or charged. The response contains the text only as it
would be sent on, never what was found in it.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.api.bodies import json_answer, read_body
from proxy.api.caller import Caller
from proxy.api.parameters import invalid, read_query
from proxy.api.shapes import ANY, INTEGER, OBJECT, TEXT, array, describes, nullable, obj, one_of
from proxy.config.names import shown
from proxy.errors import InvalidRequest
from proxy.event_loop.off_loop import off_loop
from proxy.nouns.findings import Sighting, Unscanned
from proxy.policy.dry_run import DryRun, dry_run
from proxy.policy.ready import Policies
from proxy.projects.directory import Directory

_MEMBERS = ("text", "body", "projectId", "direction")

_TEST: Final = {
    "type": "object",
    "properties": {
        "text": TEXT,
        "body": OBJECT,
        "projectId": {"type": "string", "minLength": 1, "maxLength": 256},
        "direction": one_of("prompt", "output"),
    },
    "oneOf": [{"required": ["text"]}, {"required": ["body"]}],
    "additionalProperties": False,
}
FINDING: Final = {"rule": TEXT, "category": TEXT, "severity": TEXT, "action": TEXT, "place": nullable(TEXT)}
"""Members of `finding_document`."""
UNSCANNED: Final = obj(place=TEXT, reason=TEXT)
_RAN: Final = obj(
    "PolicyTest",
    action=TEXT,
    policyVersion=TEXT,
    findings=array(
        obj(
            **FINDING,
            start=INTEGER,
            end=INTEGER,
        )
    ),
    unscanned=array(UNSCANNED),
    result=ANY,
)


class PolicyApi:
    """Handler of `/v1/sidegate/policy/test`."""

    def __init__(self, policies: Policies, projects: Directory) -> None:
        self._policies = policies
        self._projects = projects

    @describes(_RAN, body=_TEST, refuses=(404,))
    async def test(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return what the policy would do with `text` or `body`. `projectId` defaults to the caller's own project."""
        read_query(request, {})
        given = _members(await read_body(request))
        project_id = caller.project(given.get("projectId"))
        security = self._projects.get(project_id or "").security
        policy = await self._policies.get(security)
        document = given["body"] if "body" in given else given["text"]
        settings = self._policies.settings
        ran = await off_loop(partial(dry_run, policy, document, given.get("direction", "prompt"), settings))
        return json_answer(_document(ran, settings.max_findings))


def _members(text: bytes) -> dict[str, Any]:
    """Return the members of the request. Raises InvalidRequest for the first mistake."""
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        given = None
    if type(given) is not dict:
        raise InvalidRequest("The request body must be a JSON object in UTF-8.", code="invalid_body")
    for name in given:
        if name not in _MEMBERS:
            raise invalid(name, f"Unknown member `{shown(name)}`. Known members: {', '.join(_MEMBERS)}.")
    project = given.get("projectId", "-")
    if type(project) is not str or not 0 < len(project) <= 256 or not project.isprintable():
        raise invalid("projectId", "`projectId` must be 1 to 256 printable characters.")
    if (mistake := _mistake(given)) is not None:
        raise invalid(*mistake)
    return given


def _mistake(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first member that is wrong, and why; `None` if all are right."""
    if ("text" in given) == ("body" in given):
        return "text", "Give either `text` or `body`."
    if "text" in given and type(given["text"]) is not str:
        return "text", "`text` must be a string."
    if "body" in given and type(given["body"]) is not dict:
        return "body", "`body` must be a request body, a JSON object."
    if given.get("direction", "prompt") not in ("prompt", "output"):
        return "direction", "`direction` must be prompt or output."
    if "body" in given and given.get("direction") == "output":
        return "direction", "`direction` can be output only together with `text`."
    return None


def finding_document(found: Sighting) -> dict[str, Any]:
    """Return what was found and where, without the text itself."""
    return {
        "rule": found.finding.rule_id,
        "category": found.finding.category,
        "severity": found.finding.severity,
        "action": found.action,
        "place": found.place,
    }


def unscanned_document(part: Unscanned) -> dict[str, str]:
    """Return which part of a body could not be scanned, and why."""
    return {"place": part.place, "reason": part.reason}


def _document(ran: DryRun, most: int) -> dict[str, Any]:
    return {
        "action": ran.action,
        "policyVersion": ran.version,
        "findings": [
            {**finding_document(each), "start": each.finding.start, "end": each.finding.end}
            for each in ran.sightings[:most]
        ],
        "unscanned": [*map(unscanned_document, ran.unscanned[:most])],
        "result": ran.result,
    }
