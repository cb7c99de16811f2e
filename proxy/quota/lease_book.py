"""Leases in the journal: what was asked for, and what is given back.

    begin --> (PostgreSQL grants) --> keep --> keep --> end
      intent                          LEASE_KEPT         LEASE_ENDED

A record takes effect in PostgreSQL after the charges that were journaled before it, so `keep` and `end` need to say
only what still runs. An intent without an end is found at the next start and ended then (`app.App.recover`), after
the requests that ran on the lease have been recorded as interrupted.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from proxy.journal.segments import Journal


class LeaseBook:
    """Writes the records of leases. `written` tells the journal's writer to carry them at once: others may wait."""

    def __init__(self, journal: Journal, written: Callable[[], None]) -> None:
        self._journal = journal
        self._written = written

    def begin(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Note that a lease is about to be asked for. Raises JournalUnavailable: then it must not be."""
        self._journal.append_intent(lease_id.bytes, _body(str(lease_id), *caller))

    def keep(self, lease_id: str, caller: tuple[str, str], tokens: int, nanos: int) -> None:
        """Give back all but what running requests hold."""
        body = _body(lease_id, *caller, keep_tokens=tokens, keep_nanos=nanos)
        self._journal.append_lease(UUID(lease_id).bytes, body, ended=False)
        self._written()

    def end(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Note that nothing runs on it, and never will."""
        self._journal.append_lease(lease_id.bytes, _body(str(lease_id), *caller, ended=True), ended=True)
        self._written()


def ended(intent_body: bytes) -> bytes | None:
    """Return the record that ends the lease of an intent left behind; `None` if it is the intent of a request."""
    document: dict[str, Any] = orjson.loads(intent_body)
    return orjson.dumps({**document, "ended": True}) if "lease" in document else None


def _body(lease_id: str, user_id: str, project_id: str, **more: int) -> bytes:
    document = {"lease": lease_id, "user_id": user_id, "project_id": project_id, "keep_tokens": 0, "keep_nanos": 0}
    return orjson.dumps({**document, "ended": False, **more})
