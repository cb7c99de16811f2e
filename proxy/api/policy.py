"""`POST /v1/sidegate/policy/test`: what the policy of a project would do about a text or a request's body.

A dry run: no provider is asked, nothing is recorded, counted or charged. The answer holds the text only as it would
leave, never what was found in it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.api.bodies import invalid, json_answer, read_body
from proxy.api.caller import Caller
from proxy.api.parameters import read
from proxy.api.shapes import INTEGER, OBJECT, TEXT, array, describes, nullable, obj, one_of
from proxy.config.names import shown
from proxy.errors import InvalidRequest
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
_RAN: Final = obj(
    "PolicyTest",
    action=TEXT,
    policyVersion=TEXT,
    findings=array(
        obj(
            rule=TEXT,
            category=TEXT,
            severity=TEXT,
            action=TEXT,
            place=nullable(TEXT),
            start=INTEGER,
            end=INTEGER,
        )
    ),
    unscanned=array(obj(place=TEXT, reason=TEXT)),
    result={},
)


class PolicyApi:
    """Handler of the noun."""

    def __init__(self, policies: Policies, projects: Directory) -> None:
        self._policies = policies
        self._projects = projects

    @describes(_RAN, body=_TEST, refuses=(404,))
    async def test(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Answer with what would be done. Takes `text` or `body`, and `projectId`, by default the caller's own."""
        read(request.raw_path.partition("?")[2], {})
        given = _members(await read_body(request))
        project_id = caller.project(given.get("projectId"))
        security = self._projects.get(project_id or "").security
        policy = await self._policies.get(security)
        document = given["body"] if "body" in given else given["text"]
        nested_bytes = self._policies.settings.nested_bytes
        ran = await asyncio.to_thread(dry_run, policy, document, given.get("direction", "prompt"), nested_bytes)
        return json_answer(_document(ran))


def _members(text: bytes) -> dict[str, Any]:
    """Return the members of the request. Raises InvalidRequest, naming the first mistake."""
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
    """Return the member that is wrong about what is to be scanned, and why."""
    if ("text" in given) == ("body" in given):
        return "text", "Give `text` or `body`: one of them is what is scanned."
    if "text" in given and type(given["text"]) is not str:
        return "text", "`text` must be text."
    if "body" in given and type(given["body"]) is not dict:
        return "body", "`body` must be the body of a request, a JSON object."
    if given.get("direction", "prompt") not in ("prompt", "output"):
        return "direction", "`direction` must be prompt or output."
    if "body" in given and given.get("direction") == "output":
        return "direction", "`direction` can be output only for a `text`."
    return None


def _document(ran: DryRun) -> dict[str, Any]:
    return {
        "action": ran.action,
        "policyVersion": ran.version,
        "findings": [
            {
                "rule": each.finding.rule_id,
                "category": each.finding.category,
                "severity": each.finding.severity,
                "action": each.action,
                "place": each.place,
                "start": each.finding.start,
                "end": each.finding.end,
            }
            for each in ran.sightings
        ],
        "unscanned": [{"place": part.place, "reason": part.reason} for part in ran.unscanned],
        "result": ran.result,
    }
