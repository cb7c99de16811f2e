"""`/v1/sidegate/projects/{projectId}/config`: a project's own settings, as one document.

The document is read and written as a whole, so what `GET` returned can be edited and sent back with `PUT`. The `ETag`
of one is the `If-Match` of the other, so two owners who edit at the same time cannot overwrite each other.
`If-Match: *` replaces the document unconditionally; without the header nothing is replaced.

A document with mistakes is refused as a whole and every mistake is named, without quoting values. Settings that were
written with SQL are read leniently instead, member by member (`config.project`).

Source: RFC 9110 sections 8.8.3, 13.1.1 (ETag, If-Match); RFC 6585 section 3 (428).
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api.bodies import document, json_answer, read_body
from proxy.api.caller import Caller, not_found
from proxy.api.parameters import read_query
from proxy.api.shapes import CONDITIONAL, OBJECT, describes
from proxy.auth.audit import AuditLog
from proxy.config import project
from proxy.errors import InvalidRequest
from proxy.policy.policy import own_rules
from proxy.quota import limits
from proxy.tenants.store import ProjectConfig, TenantStore

MAX_BYTES: Final = 1 << 20
_MAX_TEXT: Final = 4000
_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


class ProjectConfigs:
    """Handlers of a project's configuration."""

    def __init__(self, store: TenantStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    @describes(OBJECT, **CONDITIONAL)
    async def get(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Return the settings of a project, with their version in `ETag`."""
        read_query(request, {})
        return _answer(_found(await self._store.config(caller.project_in(arguments))))

    @describes(OBJECT, body=OBJECT, headers=("If-Match",), required=("If-Match",), tells=("ETag",), refuses=(412, 428))
    async def put(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Replace the settings of a project, if they are still the version that `If-Match` names."""
        read_query(request, {})
        config = document(await read_body(request, MAX_BYTES))
        project_id = caller.project_in(arguments)
        versions = _expected(request.headers.getall("If-Match", []))
        before = _found(await self._store.config(project_id))
        await check(self._store, config)
        details = {"changed": _changed(before.config, config), "version": before.version}
        async with self._audit.change(caller.actor, "projects.configure", project_id, project_id, details):
            stored = await self._store.set_config(project_id, config, versions)
            if stored is None:
                raise InvalidRequest(
                    "The settings have changed since they were read: read them again.",
                    status=412,
                    code="config_changed",
                    param="If-Match",
                )
        return _answer(stored)


async def check(store: TenantStore, config: Mapping[str, Any]) -> None:
    """Raise InvalidRequest if these settings are invalid, naming every mistake."""
    problems = [
        *await asyncio.to_thread(_problems, config),
        *map(_in_quota, limits.validate(config.get("quota"))),
    ]
    zone = config.get("timeZone")
    if zone is not None and not (type(zone) is str and await store.is_time_zone(zone)):
        problems.append("timeZone must be the name of a time zone, such as Europe/Berlin")
    if problems:
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        text = "; ".join(problems)
        text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."
        raise InvalidRequest(f"The settings have {count}: {text.rstrip('?')}.", code="invalid_config", param="config")


def _problems(config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the members that `config.project` reads, and with the rules that are made of them."""
    settings, problems = project.parse(config)
    return [*problems, *own_rules(settings.security)[1]]


def _in_quota(problem: str) -> str:
    return problem if problem.startswith("quota") else f"quota.{problem}"


def _found(config: ProjectConfig | None) -> ProjectConfig:
    if config is None:
        raise not_found("project", "projectId")
    return config


def _expected(fields: list[str]) -> list[str] | None:
    """Return the versions that `If-Match` names, `None` for `*`. Raises InvalidRequest if the header is missing."""
    value = ", ".join(fields).strip()
    if not value:
        raise InvalidRequest(
            "Send `If-Match` with the `ETag` of the settings you read, or `*` to replace them unconditionally.",
            status=428,
            code="precondition_required",
            param="If-Match",
        )
    return None if value == "*" else [tag for weak, tag in _TAG.findall(value) if not weak]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return which members differ, for the audit log: names only, at most two levels deep."""
    changed = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old or {}, dict) and isinstance(new or {}, dict):
            inner = {**(old or {}), **(new or {})}
            changed += [f"{name}.{key}" for key in sorted(inner) if (old or {}).get(key) != (new or {}).get(key)]
        else:
            changed.append(name)
    return changed


def _answer(stored: ProjectConfig) -> web.Response:
    answer = json_answer(stored.config)
    answer.headers["ETag"] = f'"{stored.version}"'
    return answer
