"""`/v1/sidegate/keys`: API keys of users. A key is shown once, when it is created; afterwards only its id is known.

Keys are never deleted, so that a key named by a trace or the audit log can still be looked up. A key can never do more
than the key that created it, in scopes, lifetime, project or role, even if its user is promoted later.

Failure mode: leaves of `errors`; 503 while PostgreSQL is unavailable. `create` and `rotate` are not idempotent.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from proxy.api.bodies import json_answer, members, read_body
from proxy.api.caller import Caller, not_found
from proxy.api.known_projects import missing_project
from proxy.api.names import MAX_NAME, NAME, is_identifier, name
from proxy.api.paging import DEFAULT_LIMIT, PAGE, page, page_of
from proxy.api.parameters import Parameter, invalid, read_query, text, whole
from proxy.api.shapes import BOOLEAN, MOMENT, TEXT, array, describes, nullable, obj, one_of
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore, NewKey, StoredKey
from proxy.auth.roles import ROLES
from proxy.auth.scopes import OPERATION_KINDS, OPERATIONS, SCOPES, SURFACES
from proxy.config.names import did_you_mean, nearest, shown
from proxy.errors import InvalidRequest
from proxy.tenants.store import TenantStore

_MAX_ENTRIES: Final = 100
_DEFAULT_OVERLAP_S: Final = 86_400
_MAX_OVERLAP_S: Final = 30 * 86_400


def _scopes(value: object) -> dict[str, list[str]]:
    if not isinstance(value, tuple):
        raise ValueError
    found: dict[str, list[str]] = {}
    for scope, entries in value:
        if scope not in SCOPES or scope in found or not isinstance(entries, list) or len(entries) > _MAX_ENTRIES:
            raise ValueError
        found[scope] = [name(entry) for entry in entries]
    for operation in found.get("operations", ()):
        if operation not in OPERATIONS:
            guess = did_you_mean(nearest(operation, OPERATIONS))
            raise invalid(
                "scopes.operations",
                f"There is no operation or kind of operations {shown(operation)}{guess or '.'} "
                f"Kinds: {', '.join(OPERATION_KINDS)}.",
            )
    if not set(found.get("surfaces", ())) <= set(SURFACES):
        raise ValueError
    return found


def _future(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not datetime.now(UTC) < moment < datetime(9000, 1, 1, tzinfo=UTC):
        raise ValueError
    return moment


def _overlap(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_OVERLAP_S:
        raise ValueError
    return value


_EXPIRES: Final = Parameter(_future, "an ISO 8601 time in the future", MOMENT)
_NEW: Final = {
    "name": NAME,
    "userId": NAME,
    "projectId": NAME,
    "scopes": Parameter(
        _scopes,
        f"an object of lists of names: {', '.join(SCOPES)}; surfaces are {' and '.join(SURFACES)}",
        {
            "type": "object",
            "properties": {scope: {**array(TEXT), "maxItems": _MAX_ENTRIES} for scope in SCOPES},
            "additionalProperties": False,
        },
    ),
    "expiresAt": _EXPIRES,
}
_ROTATION: Final = {
    "overlapSeconds": Parameter(_overlap, f"a whole number from 0 to {_MAX_OVERLAP_S}", whole(0, _MAX_OVERLAP_S)),
    "expiresAt": _EXPIRES,
}
_LISTED: Final = {
    "projectId": text(MAX_NAME),
    "userId": text(MAX_NAME),
    **PAGE,
}
_ROLE: Final = nullable(one_of(*ROLES))
_SHAPE: Final = {
    "id": TEXT,
    "name": TEXT,
    "userId": TEXT,
    "projectId": TEXT,
    "role": _ROLE,
    "roleLimit": _ROLE,
    "scopes": {"type": "object", "additionalProperties": array(TEXT)},
    "isValid": BOOLEAN,
    "createdBy": TEXT,
    "createdAt": MOMENT,
    "expiresAt": nullable(MOMENT),
    "revokedAt": nullable(MOMENT),
    "lastUsedAt": nullable(MOMENT),
    "replacedBy": nullable(TEXT),
}
_KEY: Final = obj("Key", **_SHAPE)
_NEW_KEY: Final = obj("NewKey", **_SHAPE, key=TEXT)


class Keys:
    """Handlers of `/v1/sidegate/keys`."""

    def __init__(self, store: KeyStore, keyring: Keyring, audit: AuditLog, tenants: TenantStore) -> None:
        self._tenants = tenants
        self._store = store
        self._keyring = keyring
        self._audit = audit

    @describes(page("keys", _KEY), query=_LISTED)
    async def list(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """List keys, newest first."""
        values = read_query(request, _LISTED)
        limit = values.get("limit", DEFAULT_LIMIT)
        rows = await self._store.list(
            caller.project(values.get("projectId")), values.get("userId"), limit + 1, values.get("cursor")
        )
        return page_of("keys", rows, limit, document=_document, cursor=lambda row: row.id)

    @describes(_NEW_KEY, status=201, body=_NEW, required=("name", "userId"))
    async def create(self, request: web.BaseRequest, _arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Create a key, and return it this once."""
        read_query(request, {})
        values = members(await read_body(request), _NEW, required=("name", "userId"))
        project_id = caller.project(values.get("projectId"))
        if project_id is None:
            raise invalid("projectId", "`projectId` is missing.")
        user_id, limit = values["userId"], caller.role_limit(values["userId"])
        new = NewKey(values["name"], user_id, project_id, values.get("scopes", {}), values.get("expiresAt"), limit)
        caller.check_outranks(await self._store.role(new.user_id, project_id))
        caller.check_hands_on(new.scopes, new.expires_at)
        details = {"name": new.name, "userId": new.user_id, "scopes": new.scopes}
        async with self._audit.change(caller.actor, "keys.create", project_id, None, details) as change:
            made = await self._store.create(new, caller.actor.name)
            if made is None:
                raise await missing_project(self._tenants, caller, project_id)
            change.target = made[0]
        return await self._made(*made)

    @describes(_NEW_KEY, status=201, body=_ROTATION, is_body_optional=True, refuses=(409,))
    async def rotate(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Create a successor with the same user, project and scopes; the old key ends after the overlap.

        The successor gets the lifetime of the old key, unless `expiresAt` says otherwise.
        """
        read_query(request, {})
        values = members(await read_body(request) or b"{}", _ROTATION)
        old = await self._of(caller, arguments["keyId"])
        overlap = timedelta(seconds=values.get("overlapSeconds", _DEFAULT_OVERLAP_S))
        expires_at = values.get("expiresAt", _same_span(old))
        caller.check_hands_on(old.scopes, expires_at)
        limit = caller.role_limit(old.user_id)
        details = {"overlapSeconds": int(overlap.total_seconds())}
        async with self._audit.change(caller.actor, "keys.rotate", old.project_id, old.id, details):
            made = await self._store.rotate(old.id, overlap, expires_at, caller.actor.name, limit)
            if made is None:
                raise InvalidRequest(
                    "This key has ended or was rotated before; `replacedBy` names its successor.",
                    status=409,
                    code="key_not_rotatable",
                    param="keyId",
                )
        self._keyring.forget(old.id)
        return await self._made(*made)

    @describes(_KEY, refuses=(408, 413))
    async def revoke(self, request: web.BaseRequest, arguments: Mapping[str, str], caller: Caller) -> web.Response:
        """Revoke a key: at once here, within seconds on other replicas. Idempotent."""
        read_query(request, {})
        await read_body(request)
        key = await self._of(caller, arguments["keyId"])
        async with self._audit.change(caller.actor, "keys.revoke", key.project_id, key.id):
            await self._store.revoke(key.id)
        self._keyring.forget(key.id)
        return json_answer(_document((await self._store.find([key.id]))[key.id]))

    async def _of(self, caller: Caller, key_id: str) -> StoredKey:
        """Return a key that the caller may change. Raises 404, or 403 if the key's user has a higher role."""
        key = (await self._store.find([key_id])).get(key_id) if is_identifier(key_id) else None
        if key is None or not caller.sees(key.project_id):
            raise not_found("key", "keyId")
        caller.check_outranks(key.role)
        return key

    async def _made(self, key_id: str, key: str) -> web.Response:
        stored = (await self._store.find([key_id]))[key_id]
        return json_answer({**_document(stored), "key": key}, status=201)


def _same_span(key: StoredKey) -> datetime | None:
    """Return when a key created now would expire if it lived as long as `key`; `None`: never."""
    return None if key.expires_at is None else datetime.now(UTC) + (key.expires_at - key.created_at)


def _document(key: StoredKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "userId": key.user_id,
        "projectId": key.project_id,
        "role": key.role,
        "roleLimit": key.role_limit,
        "scopes": key.scopes,
        "isValid": key.is_valid,
        "createdBy": key.created_by,
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
        "lastUsedAt": key.last_used_at,
        "replacedBy": key.replaced_by,
    }
