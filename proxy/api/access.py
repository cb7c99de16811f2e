"""Authentication of the management API: the admin key, or an API key with its user's role.

The admin key is not kept; its SHA-256 digest is compared in constant time. Every other key is looked up in `api_keys`.
Without a valid key a request learns nothing else; wrong keys count against their address (`auth.keyring`).

Source: RFC 6750 section 2.1 (Bearer); RFC 9110 section 11.1 (schemes ignore case).
"""

import hmac
from collections.abc import Sequence

from proxy.api.caller import Caller
from proxy.auth.admission import check
from proxy.auth.keyring import Keyring
from proxy.auth.keys import digest
from proxy.auth.roles import OPERATOR, PERMISSIONS
from proxy.errors import Unauthenticated


class Access:
    """Checks credentials. `admin_key_hash`: SHA-256 digest of the admin key."""

    def __init__(self, admin_key_hash: bytes, keyring: Keyring) -> None:
        self._admin_key_hash = admin_key_hash
        self._keyring = keyring

    async def identify(self, authorization: Sequence[str], peer: str | None) -> Caller:
        """Return the caller that the request's `Authorization` header values name.

        Raises:
            Unauthenticated: there is no key, more than one, or a wrong one.
            TooManyAttempts: too many wrong keys came from this address.
            PermissionDenied: the key's scopes do not include this API.
            DatabaseUnavailable: the key cannot be looked up at the moment.
        """
        scheme, _, key = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("This endpoint needs a key: send `Authorization: Bearer <admin key or API key>`.")
        if hmac.compare_digest(digest(key), self._admin_key_hash):
            return Caller(OPERATOR, peer=peer)
        stored = await self._keyring.find(key, peer)
        check(stored, "api")
        permissions = frozenset() if stored.role is None else PERMISSIONS[stored.role]
        return Caller(permissions, stored, peer)
