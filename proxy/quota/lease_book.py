"""The journal records of leases: what was requested, and what is returned.

    begin --> (PostgreSQL grants) --> keep --> keep --> end
      intent                          LEASE_KEPT         LEASE_ENDED

A record takes effect in PostgreSQL after the charges that were journaled before it, so `keep` and `end` contain only
what is still in use. An intent without an end is found at the next start and ended then (`app.App.recover`), after
the requests that used the lease have been recorded as interrupted.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from proxy.journal.segments import Journal


class LeaseBook:
    """Writes the records of leases. `written` makes the journal's writer store them at once, as others may wait."""

    def __init__(self, journal: Journal, written: Callable[[], None]) -> None:
        self._journal = journal
        self._written = written

    def begin(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Record that a lease will be requested. Raises JournalUnavailable, in which case it must not be."""
        self._journal.append_intent(lease_id.bytes, _body(str(lease_id), *caller))

    def keep(self, lease_id: str, caller: tuple[str, str], tokens: int, nanos: int) -> None:
        """Return everything except what running requests hold."""
        body = _body(lease_id, *caller, keep_tokens=tokens, keep_nanos=nanos)
        self._journal.append_lease(UUID(lease_id).bytes, body, ended=False)
        self._written()

    def end(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Record that no request uses it, or ever will."""
        self._journal.append_lease(lease_id.bytes, _body(str(lease_id), *caller, ended=True), ended=True)
        self._written()


def ended(intent_body: bytes) -> bytes | None:
    """Return the record that ends the lease of a leftover intent; `None` if it is the intent of a request."""
    document: dict[str, Any] = orjson.loads(intent_body)
    return orjson.dumps({**document, "ended": True}) if "lease" in document else None


def _body(lease_id: str, user_id: str, project_id: str, **more: int) -> bytes:
    document = {"lease": lease_id, "user_id": user_id, "project_id": project_id, "keep_tokens": 0, "keep_nanos": 0}
    return orjson.dumps({**document, "ended": False, **more})
