"""Every route x every role x own and foreign project, made from the table of routes: none can be missing."""

import itertools
import json

import pytest

from proxy.api.routes import Api, Endpoint
from proxy.auth.roles import OPERATOR, PERMISSIONS
from proxy.config import schema
from proxy.db.pool import Database
from tests.api.test_keys import OwnApi, api
from tests.fakes.own_api import own_api

__all__ = ["api"]

TABLE: tuple[Endpoint, ...] = own_api(Database(schema.Database())).table
ASKING = {
    "/v1/quota/status": "userId=u&projectId={project}",
    "/v1/quota/top": "projectId={project}",
    "/v1/traces": "projectId={project}",
    "/v1/traces/{traceId}": None,
    "/v1/analytics/check": "day=2026-11-01&projectId={project}",
    "/v1/analytics/rebuild": "day=2026-11-01&projectId={project}",
    "/v1/sidegate/upstreams": None,
    "/v1/sidegate/whoami": None,
    "/v1/sidegate/organizations": None,
    "/v1/sidegate/projects": None,
}
BODIES = {
    "/v1/quota/update": {"userId": "u", "projectId": "{project}", "maxTokensDaily": 5},
    "/v1/quota/reset": {"userId": "u", "projectId": "{project}"},
    "/v1/route": {"model": "gpt-4o-mini", "messages": []},
    "/v1/sidegate/policy/test": {"text": "hi", "projectId": "{project}"},
    "/v1/sidegate/keys": {"name": "n", "userId": "u", "projectId": "{project}"},
    "/v1/sidegate/organizations": {"id": "new-{number}"},
    "/v1/sidegate/organizations/{organizationId}": {"name": "n"},
    "/v1/sidegate/projects": {"id": "new-{number}"},
    "/v1/sidegate/projects/{projectId}": {"name": "n"},
    "/v1/sidegate/projects/{projectId}/config": {"features": {"enableCache": True}},
    "/v1/sidegate/projects/{projectId}/members/{userId}": {"role": "viewer"},
}
HEADERS = {"/v1/route": {"X-Sidegate-Project": "{project}"}}
CHANGES_NOTHING = {"/v1/route", "/v1/sidegate/policy/test"}
"""Asked with a body, so by POST."""
WITHOUT_PROJECT = {
    "/v1/traces/{traceId}",
    "/v1/sidegate/whoami",
    "/v1/sidegate/projects",
    "/v1/sidegate/organizations",
    "/v1/sidegate/organizations/{organizationId}",
}
"""Of traces only one that is not there can be asked for; a list of projects names none."""
ARGUMENTS = {
    "{traceId}": "0192f0c1-7e3a-7cc4-a1b2-5d0c6f3e9a41",
    "{keyId}": "zzzzzzzzzzzz",
    "{organizationId}": "default-org",
    "{userId}": "viewer",
}
NUMBERS = itertools.count()


def _request(endpoint: Endpoint, project: str) -> tuple[str, object]:
    path = endpoint.path.replace("{projectId}", project)
    for name, value in ARGUMENTS.items():
        path = path.replace(name, value)
    names_project = "{" not in endpoint.path and (endpoint.method == "GET" or endpoint.path in ASKING)
    query = ASKING.get(endpoint.path, "projectId={project}") if names_project else None
    body = None
    if endpoint.method in ("POST", "PUT", "PATCH") and endpoint.path in BODIES:
        text = json.dumps(BODIES[endpoint.path]).replace("{project}", project)
        body = json.loads(text.replace("{number}", str(next(NUMBERS))))
    return path + ("" if query is None else "?" + query.format(project=project)), body


@pytest.mark.parametrize("endpoint", TABLE, ids=lambda row: f"{row.method} {row.path}")
async def test_role_decides_and_other_projects_do_not_exist(endpoint: Endpoint, api: OwnApi) -> None:
    names_thing = "{traceId}" in endpoint.path or "{keyId}" in endpoint.path
    for who in ("viewer", "developer", "admin", "owner", "operator"):
        permissions = OPERATOR if who == "operator" else PERMISSIONS[who]
        may = endpoint.permission is None or endpoint.permission in permissions
        for project in ("shop", "lab"):
            path, body = _request(endpoint, project)
            named = {"If-Match": "*"} if endpoint.method == "PUT" else {}
            named |= {name: value.format(project=project) for name, value in HEADERS.get(endpoint.path, {}).items()}
            status, answer = await api.ask(who, endpoint.method, path, body, **named)
            if not may:
                assert status == 403 and answer["error"]["code"] == "permission_denied", (who, project, answer)
            elif names_thing:
                assert status == 404, (who, project, answer)
            elif who == "operator" or project == "shop" or endpoint.path in WITHOUT_PROJECT:
                assert status in (200, 201, 404, 409), (who, project, answer)
                if status in (404, 409):
                    assert answer["error"]["code"] in ("quota_not_found", "member_not_found", "protected")
            else:
                assert (status, answer["error"]["code"]) == (404, "project_not_found"), (who, project, answer)
    for key in ("", "wrong", "sg-zzzzzzzzzzzz-" + "x" * 43):
        path, body = _request(endpoint, "shop")
        assert (await api.ask(key, endpoint.method, path, body))[0] == 401


def test_every_change_has_a_permission_of_its_own() -> None:
    assert all(
        row.permission and row.permission.endswith((":write", ":rebuild"))
        for row in TABLE
        if row.method != "GET" and row.path not in CHANGES_NOTHING
    )
    assert isinstance(own_api(Database(schema.Database())), Api)
