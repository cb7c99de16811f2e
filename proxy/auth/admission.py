"""Phase 1 in mode `keys`: the holder of a valid key is the key's user, in the key's project, within its scopes.

The key comes in `Authorization: Bearer sg-..`, where every OpenAI SDK puts it. Headers that name a user or a project
are ignored: the key decides. It is never sent upstream, and only its id is kept.

Failure mode: leaves of `errors`. 401 without a valid key; 403 if its role or scopes do not allow the request; 503 if
the key cannot be looked up at the moment.
Source: RFC 6750 section 2.1; OpenAI API reference, "Authentication" and "Error codes".
"""

from collections.abc import Mapping
from typing import Final

from proxy.auth.keyring import Keyring
from proxy.auth.keys import StoredKey
from proxy.auth.roles import PERMISSIONS
from proxy.auth.scopes import scope
from proxy.errors import PermissionDenied, Unauthenticated
from proxy.exchange import Inbound, Operation, Principal
from proxy.openai.operations import KINDS

_MISSING: Final = "You did not provide an API key: send `Authorization: Bearer sg-...`."


class Admission:
    """Authenticates requests of the data plane."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def admit(self, inbound: Inbound) -> Principal:
        """Return the caller.

        Raises:
            Unauthenticated, TooManyAttempts, PermissionDenied, DatabaseUnavailable: see the head of the module.
        """
        text = bearer(inbound.fields)
        key = self._keyring.known(text) or await self._keyring.find(text, inbound.peer)
        check(key, "data")
        if key.role is None or "models:call" not in PERMISSIONS[key.role]:
            raise PermissionDenied("The role of this API key's user does not allow calling models.")
        check_operation(scope(key.scopes.get("operations")), inbound.operation)
        return Principal(key.user_id, key.project_id, "key", key.id, scope(key.scopes.get("models")))


def bearer(fields: Mapping[bytes, bytes]) -> str:
    """Return the key in the headers. Raises Unauthenticated if there is none."""
    scheme, _, text = fields.get(b"authorization", b"").decode("utf-8", "surrogateescape").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated(_MISSING)
    return text.strip()


def check(key: StoredKey, surface: str) -> None:
    """Raise PermissionDenied if a key's scopes do not include a surface: `data` (models) or `api` (management)."""
    surfaces = scope(key.scopes.get("surfaces"))
    if surfaces is not None and surface not in surfaces:
        raise PermissionDenied("This API key may not be used here: its scopes do not include this surface.")


def check_operation(allowed: frozenset[str] | None, operation: Operation) -> None:
    """Raise PermissionDenied if `operation` is not among those, by name or kind, that a key is limited to."""
    if allowed is not None and not allowed & {operation.name, operation.request_type, KINDS.get(operation.name)}:
        raise PermissionDenied(f"This API key may not be used for {operation.name}.", code="operation_not_allowed")


def check_model(principal: Principal, model: str | None, *, billable: bool) -> None:
    """Raise PermissionDenied if `model` is not among those that the caller's key is limited to."""
    allowed = principal.models
    if allowed is None or model in allowed or (model is None and not billable):
        return
    raise PermissionDenied(
        "This API key may not be used for this model." if model else "This API key is limited to models: name one.",
        code="model_not_allowed",
        param="model",
    )
