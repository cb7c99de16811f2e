"""The keys that are in use here: who holds one is known from memory, and followed in PostgreSQL.

    key --> in memory, and its secret fits --> its user, project, role and scopes; never waits
        --> else PostgreSQL is asked once, unless its address has guessed too often

Every `refresh_s` all keys in memory are read anew, so that a revoked key, or a changed role, counts within that time.
A secret is compared by digest in constant time, and against a digest of nothing where the id is unknown, so neither
answer nor time tells an id that exists from one that does not. What is counted against an address is wrong keys; a key
in memory works from everywhere at any time.

Failure mode: PostgreSQL away: a key in memory stays valid for `outage_s` after it was last seen so, or until it
expires; any other is 503, never 401: it may be right.
"""

import asyncio
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from proxy.auth.keys import StoredKey, digest, parts
from proxy.config.auth import Auth
from proxy.errors import DatabaseUnavailable, TooManyAttempts, Unauthenticated

_NOTHING: Final = digest("")
_WINDOW_S: Final = 60.0
_MAX_PEERS: Final = 4096
_WRONG: Final = "The API key is wrong, has expired or was revoked."
_log = logging.getLogger("sidegate.auth")


class KeySource(Protocol):
    """The store, as far as the keyring asks it. Both raise DatabaseUnavailable."""

    async def find(self, ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return the keys that exist."""

    async def touch(self, used: Mapping[str, datetime]) -> None:
        """Write down when keys were used last."""


@dataclass(slots=True)
class _Kept:
    key: StoredKey
    seen: float
    """When PostgreSQL last said so."""


class Keyring:
    """`clock`: monotonic seconds. `now`: the time of day, for keys that expire."""

    def __init__(
        self,
        settings: Auth,
        source: KeySource,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._now = now
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._used: dict[str, datetime] = {}
        self._guesses: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._refreshed = clock()
        self.refused = 0
        """Wrong keys since the start. `blocked`: keys that were not even looked at."""
        self.blocked = 0

    def follow(self, settings: Auth) -> None:
        """Take over a changed configuration. Keys in memory stay."""
        self._settings = settings

    def known(self, key: str) -> StoredKey | None:
        """Return the key if it is in memory and valid. Never waits."""
        found = parts(key)
        kept = None if found is None else self._kept.get(found[0])
        if found is None or kept is None or not hmac.compare_digest(digest(found[1]), kept.key.secret_hash):
            return None
        now = self._now()
        if not self._is_valid(kept, now):
            return None
        self._kept.move_to_end(found[0])
        self._used[found[0]] = now
        return kept.key

    async def find(self, key: str, peer: str | None) -> StoredKey:
        """Return the valid key that `key` is.

        Raises:
            Unauthenticated: it is none.
            TooManyAttempts: its address has sent too many wrong ones.
            DatabaseUnavailable: it is not in memory, and PostgreSQL is away.
        """
        if (stored := self.known(key)) is not None:
            return stored
        address = peer or ""
        self._check_address(address)
        found = parts(key)
        if found is not None:
            stored = (await self._source.find([found[0]])).get(found[0])
        fits = hmac.compare_digest(digest(found[1] if found else ""), stored.secret_hash if stored else _NOTHING)
        if stored is None or not fits or not stored.is_valid:
            self._note_wrong(address)
            raise Unauthenticated(_WRONG)
        self._keep(stored)
        self._used[stored.id] = self._now()
        return stored

    async def refresh(self) -> None:
        """Read all keys in memory anew. Raises DatabaseUnavailable."""
        await self._read_anew(list(self._kept))
        self._refreshed = self._clock()

    async def recheck(self, project_id: str, user_id: str | None = None) -> None:
        """Read the keys of a project, or of one user there, anew: at once, after a change of what they may do.

        They are not just dropped: a key in memory works from an address that others guess from, a dropped one does not.
        """
        ids = [
            kept.key.id
            for kept in self._kept.values()
            if kept.key.project_id == project_id and user_id in (None, kept.key.user_id)
        ]
        try:
            await self._read_anew(ids)
        except DatabaseUnavailable:  # what was changed counts, whatever is known here
            for key_id in ids:
                self.forget(key_id)

    async def _read_anew(self, ids: Collection[str]) -> None:
        if not ids:
            return
        current = await self._source.find(ids)
        seen = self._clock()
        for key_id in ids:
            stored = current.get(key_id)
            if stored is not None and stored.is_valid:
                if (kept := self._kept.get(key_id)) is not None:
                    kept.key, kept.seen = stored, seen
            else:
                self._kept.pop(key_id, None)

    async def write_down(self) -> None:
        """Store when keys were used last. What cannot be stored is stored next time. Raises DatabaseUnavailable."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._source.touch(used)
        except DatabaseUnavailable:
            self._used = used | self._used
            raise

    def forget(self, key_id: str) -> None:
        """Drop a key that was just changed here: at once, not with the next refresh."""
        self._kept.pop(key_id, None)

    async def run(self) -> None:
        """Follow PostgreSQL until cancelled."""
        write_at = self._clock() + self._settings.last_used_s

        while True:
            try:
                await self.refresh()
                if self._clock() >= write_at:
                    write_at = self._clock() + self._settings.last_used_s
                    await self.write_down()
            except DatabaseUnavailable:
                pass
            await asyncio.sleep(self._settings.refresh_s)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def age_s(self) -> float:
        """How old the latest news of the keys in memory are; a key revoked since then still counts here."""
        return self._clock() - self._refreshed

    def _is_valid(self, kept: _Kept, now: datetime) -> bool:
        if kept.key.expires_at is not None and kept.key.expires_at <= now:
            return False
        return self._clock() - kept.seen <= self._settings.outage_s

    def _keep(self, stored: StoredKey) -> None:
        self._kept[stored.id] = _Kept(stored, self._clock())
        self._kept.move_to_end(stored.id)
        while len(self._kept) > self._settings.max_keys:
            self._kept.popitem(last=False)

    def _check_address(self, address: str) -> None:
        began, count = self._guesses.get(address, (self._clock(), 0))
        left = began + _WINDOW_S - self._clock()
        if left > 0 and count >= self._settings.guesses_per_minute:
            self.blocked += 1
            raise TooManyAttempts("Too many wrong API keys came from your address.", retry_after_s=left)

    def _note_wrong(self, address: str) -> None:
        self.refused += 1
        now = self._clock()
        began, count = self._guesses.get(address, (now, 0))
        if now - began >= _WINDOW_S:
            began, count = now, 0
        self._guesses[address] = (began, count + 1)
        self._guesses.move_to_end(address)
        if count + 1 == self._settings.guesses_per_minute:
            _log.warning("many wrong keys from one address", extra={"peer": address})
        while len(self._guesses) > _MAX_PEERS:
            self._guesses.popitem(last=False)
