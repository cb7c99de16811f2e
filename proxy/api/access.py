"""Who may use the API of our own. Today one credential exists: the admin key, which may do everything.

Compared are SHA-256 digests in constant time, so neither the key nor its length can be guessed by timing, and the key
itself is not kept. A request without the right key learns nothing but that.

Source: RFC 6750 section 2.1 (Bearer); RFC 9110 section 11.1 (schemes ignore case).
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal, get_args

from proxy.errors import Unauthenticated

Permission = Literal["traces:read", "quota:read", "quota:write", "analytics:read", "analytics:rebuild", "routing:read"]


class Access:
    """Checks credentials. `admin_key_hash`: SHA-256 digest of the admin key."""

    def __init__(self, admin_key_hash: bytes) -> None:
        self._admin_key_hash = admin_key_hash
        self._admin_may: frozenset[Permission] = frozenset(get_args(Permission))

    def require(self, authorization: Sequence[str], permission: Permission) -> None:
        """Return if the request's `Authorization` values allow `permission`.

        Raises:
            Unauthenticated: no key, more than one, or a wrong one.
        """
        scheme, _, key = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated("This endpoint needs the admin key: send `Authorization: Bearer <admin key>`.")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(digest, self._admin_key_hash) or permission not in self._admin_may:
            raise Unauthenticated("The admin key is wrong. It stands in SIDEGATE_ADMIN_KEY or in data_dir/admin.key.")
