"""What is known of PostgreSQL's health, and what the log has said of it: each reason once in an outage.

    down --an answer at once--> up --refused, lost, silent--> down
    down, up --an answer that took longer than a request waits--> slow --an answer at once--> up
                                                                       `--refused, lost, silent for long--> down

A full or read-only PostgreSQL refuses writes and answers every probe: after a refusal nothing is "up" for a time.

Source: PostgreSQL documentation, appendix A "Error Codes".
"""

import logging
import time
from typing import Final, Literal

from proxy.errors import DatabaseUnavailable

State = Literal["up", "slow", "down"]

HELD_DOWN_S: Final = 10.0
"""For so long after the refusal of a full or read-only PostgreSQL, success of anything else does not count: longer than
the journal's pause between two tries (`journal.retry_max_s`, 5 s)."""
_SLOW_S = 60.0
"""For so long after the last answer of a slow PostgreSQL, silence is no reason to think that it is gone."""
_MIGRATION_S = 10.0  # migrations may take this long; after that, a missing table is worth a warning
_OTHER_SCHEMA = "the schema does not belong to this version"
_SETTING: Final = "database.url (DATABASE_URL); without it, the private PostgreSQL below data_dir"
_IS_SLOW = "the database is slow: records are stored, but requests that need it find it unavailable"
_READ_ONLY = "25006"
_FULL_CLASS = "53"

_log = logging.getLogger(__name__)


class Health:
    """The state, and what leads to it."""

    def __init__(self) -> None:
        self.state: State = "down"
        self._answered_at = 0.0
        self._held_down_until = 0.0
        self._told: set[str] = set()  # reasons already logged in this outage; the start counts as one
        self._other_schema_since: float | None = None

    def is_slow(self) -> bool:
        """Tell whether PostgreSQL answers, but late."""
        return self.state == "slow" and time.monotonic() - self._answered_at < _SLOW_S

    def note_answer(self, *, is_prompt: bool) -> None:
        """A connection was tested and used. `is_prompt`: it answered while a request would have waited."""
        now = self._answered_at = time.monotonic()
        state: State = "up" if is_prompt else "slow"
        if state == self.state or now < self._held_down_until:
            return
        self.state = state
        if is_prompt:
            self._told.clear()
            _log.info("the database is available")
        elif _IS_SLOW not in self._told:
            self._told.add(_IS_SLOW)
            _log.warning(_IS_SLOW)

    def note_down(self, reason: str) -> DatabaseUnavailable:
        """PostgreSQL is away, or refuses; return the error for the caller."""
        self.state = "down"
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("the database is unavailable: %s", reason, extra={"setting": _SETTING})
        return DatabaseUnavailable(f"The database is not available ({reason}).")

    def note_refusal(self, sqlstate: str) -> None:
        """Hold the state down if PostgreSQL is full or read-only."""
        if sqlstate[:2] == _FULL_CLASS or sqlstate == _READ_ONLY:
            self._held_down_until = time.monotonic() + HELD_DOWN_S

    def note_schema(self, sqlstate: str) -> None:
        """Warn once that the schema is another one; at a first start it is, until the migrations have run."""
        now = time.monotonic()
        self._other_schema_since = self._other_schema_since or now
        if now - self._other_schema_since >= _MIGRATION_S and _OTHER_SCHEMA not in self._told:
            self._told.add(_OTHER_SCHEMA)
            _log.warning(_OTHER_SCHEMA, extra={"sqlstate": sqlstate})

    def note_obstacle(self, message: str, error: Exception) -> None:
        """Warn once of what an operator has to change; PostgreSQL names the object.

        Only its message is told: the detail quotes data of the row, so that each row would be another reason.
        """
        reason = str(error.args[0]) if error.args else type(error).__name__
        if reason not in self._told:
            self._told.add(reason)
            _log.warning(message, extra={"reason": reason})
