"""The API keys in use by this process: cached in memory, refreshed from PostgreSQL.

    key --> cached, and its secret matches --> its user, project, role and scopes; never waits
        --> else PostgreSQL is asked once, unless the address has sent too many wrong keys

Requests that come with the same key id meanwhile wait for the same look-up: after a start, or an outage, all callers of
one key come at once, and each would take a connection from the pool.

All cached keys are refreshed every `refresh_s`, so a revoked key or a changed role takes effect within that time,
and at once if this process made the change: a look-up that began before it is not cached.

Secrets are compared by digest in constant time, against the digest of nothing if the id is unknown. So the response
does not reveal whether an id exists; timing does by the 0.05 ms that reading its row takes, and guesses are counted.
Only wrong keys count against an address; a cached key works from anywhere at any time. The count is looked at before
each comparison, so guesses sent all at once get no further than others.

Failure mode: while PostgreSQL is unavailable, a cached key stays valid for `outage_s` after it was last confirmed, or
until it expires. Any other key gets 503, never 401: it may be valid.
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
    """The part of the key store that the keyring uses. Both methods raise DatabaseUnavailable."""

    async def find(self, ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return the keys that exist."""

    async def touch(self, used: Mapping[str, datetime]) -> None:
        """Store when keys were last used."""


@dataclass(slots=True)
class _Kept:
    key: StoredKey
    seen: float
    """When PostgreSQL last confirmed it (monotonic seconds)."""
    read: int
    """Number of the look-up that found it: an earlier one that ends later knows less."""


@dataclass(frozen=True, slots=True)
class _LookUp:
    """A look-up that runs. `read`: its number."""

    read: int
    task: asyncio.Task[StoredKey | None]


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
        self._look_ups: dict[str, _LookUp] = {}
        """The latest look-up of each key id, while it runs."""
        self._guesses: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._refreshed = clock()
        self._reads = 0
        self._changed = 0
        """Number of the last look-up that began before a change was made here."""
        self.refused = 0
        """Wrong keys since the start. `blocked`: keys refused without a look, because of their address."""
        self.blocked = 0

    def follow(self, settings: Auth) -> None:
        """Apply a changed configuration. Cached keys stay."""
        self._settings = settings

    def known(self, key: str) -> StoredKey | None:
        """Return the key if it is cached and valid. Never waits."""
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
        """Return the stored key of a secret, from memory or PostgreSQL.

        Raises:
            Unauthenticated: it is not a valid key.
            TooManyAttempts: the address has sent too many wrong keys.
            DatabaseUnavailable: it is not cached, and PostgreSQL is unavailable.
        """
        if (stored := self.known(key)) is not None:
            return stored
        address = peer or ""
        self._check_address(address)
        found = parts(key)
        read = 0
        if found is not None:
            stored, read = await self._look_up(found[0])
            self._check_address(address)  # others may have guessed from there meanwhile
        fits = hmac.compare_digest(digest(found[1] if found else ""), stored.secret_hash if stored else _NOTHING)
        if stored is None or not fits or not stored.is_valid:
            self._note_wrong(address)
            raise Unauthenticated(_WRONG)
        if read > self._changed:  # else it may have been revoked meanwhile
            self._keep(stored, read)
        self._used[stored.id] = self._now()
        return stored

    async def _look_up(self, key_id: str) -> tuple[StoredKey | None, int]:
        """Return the stored key and the number of the look-up. One that began before a change here is not joined.

        A caller that leaves does not end it for the others. Raises DatabaseUnavailable.
        """
        running = self._look_ups.get(key_id)
        if running is None or running.read <= self._changed:
            read = self._next_read()
            running = self._look_ups[key_id] = _LookUp(read, asyncio.create_task(self._read_one(key_id, read)))
        return await asyncio.shield(running.task), running.read

    async def _read_one(self, key_id: str, read: int) -> StoredKey | None:
        try:
            return (await self._source.find([key_id])).get(key_id)
        finally:
            latest = self._look_ups.get(key_id)
            if latest is not None and latest.read == read:
                del self._look_ups[key_id]

    async def refresh(self) -> None:
        """Refresh all cached keys. Raises DatabaseUnavailable."""
        await self._read_anew(list(self._kept))
        self._refreshed = self._clock()

    async def recheck(self, project_id: str, user_id: str | None = None) -> None:
        """Refresh the keys of a project, or of one user there, right after a change to what they may do.

        They are not just dropped: a cached key works even from an address that others guess from, another does not.
        """
        self._changed = self._reads
        ids = [
            kept.key.id
            for kept in self._kept.values()
            if kept.key.project_id == project_id and user_id in (None, kept.key.user_id)
        ]
        try:
            await self._read_anew(ids)
        except DatabaseUnavailable:  # the change must take effect even so
            for key_id in ids:
                self.forget(key_id)

    async def _read_anew(self, ids: Collection[str]) -> None:
        if not ids:
            return
        read = self._next_read()
        current = await self._source.find(ids)
        seen = self._clock()
        for key_id in ids:
            kept, stored = self._kept.get(key_id), current.get(key_id)
            if kept is None or kept.read > read:
                continue
            if stored is not None and stored.is_valid:
                kept.key, kept.seen, kept.read = stored, seen, read
            else:
                del self._kept[key_id]

    async def write_down(self) -> None:
        """Store when keys were last used, or keep it for the next time. Raises DatabaseUnavailable."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._source.touch(used)
        except DatabaseUnavailable:
            self._used = used | self._used
            raise

    def forget(self, key_id: str) -> None:
        """Drop a key that was just changed here, without waiting for the next refresh."""
        self._changed = self._reads
        self._kept.pop(key_id, None)

    async def run(self) -> None:
        """Refresh periodically until cancelled."""
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
        """Seconds since the last refresh; a key revoked since then is still accepted here."""
        return self._clock() - self._refreshed

    def _is_valid(self, kept: _Kept, now: datetime) -> bool:
        if kept.key.expires_at is not None and kept.key.expires_at <= now:
            return False
        return self._clock() - kept.seen <= self._settings.outage_s

    def _next_read(self) -> int:
        self._reads += 1
        return self._reads

    def _keep(self, stored: StoredKey, read: int) -> None:
        kept = self._kept.get(stored.id)
        if kept is not None and kept.read >= read:
            return
        self._kept[stored.id] = _Kept(stored, self._clock(), read)
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
