"""Keys as PostgreSQL would know them, in a dict, with an outage on request."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from proxy.auth.keys import StoredKey, digest, whole
from proxy.errors import DatabaseUnavailable

ID, SECRET = "abcdef012345", "s" * 43
KEY = whole(ID, SECRET)
_PLAIN = StoredKey(
    id=ID,
    secret_hash=digest(SECRET),
    name="laptop",
    user_id="alice",
    project_id="shop",
    scopes={},
    created_by="operator",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    expires_at=None,
    revoked_at=None,
    last_used_at=None,
    replaced_by=None,
    role_limit=None,
    role="developer",
    is_valid=True,
)


def stored(**facts: Any) -> StoredKey:
    return replace(_PLAIN, **facts)


class KeyTable:
    def __init__(self, *keys: StoredKey) -> None:
        self.keys = {key.id: key for key in keys}
        self.away = False
        self.asked = 0
        self.gate = asyncio.Event()
        """Answers leave while it is set, with what the table held when they were asked for."""
        self.gate.set()
        self.touched: dict[str, datetime] = {}

    async def find(self, ids: Collection[str]) -> Mapping[str, StoredKey]:
        if self.away:
            raise DatabaseUnavailable("away")
        self.asked += 1
        answer = {key_id: self.keys[key_id] for key_id in ids if key_id in self.keys}
        await self.gate.wait()
        return answer

    async def touch(self, used: Mapping[str, datetime]) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        self.touched |= used
