"""All callers of this replica, at most `max_callers`: the least recently used of which nothing must be remembered goes.

Must be remembered: running requests, usage in a short window, what was admitted without a lease during an outage. If
that holds for all of them, a new caller is refused: to forget one would lift its limit.

A new caller starts with the last known rules of its project, so that they apply even while PostgreSQL is unavailable;
PostgreSQL's first answer then replaces them (`keeper`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from proxy.config.quota import Quota
from proxy.quota import limits
from proxy.quota.caller import Caller
from proxy.quota.lease import Account
from proxy.quota.windows import ShortWindows

_LOOKED_AT: Final = 32
"""Callers that are considered for an eviction, however many there are. Those that stay move to the end, so that
newcomers together look at all of them; until a whole round has found nobody, a few more than `max_callers` are kept."""


class Callers:
    """Finds callers, least recently used first. `rules`: returns the known rules of a project, as JSON."""

    def __init__(self, settings: Quota, rules: Callable[[str], str | None] | None = None) -> None:
        self._settings = settings
        self._rules = rules or _know_nothing
        self._by_key: OrderedDict[tuple[str, str], Caller] = OrderedDict()
        self.forget: Callable[[Caller], None] = _keep_nothing
        """Called with each caller that is evicted."""

    def follow(self, settings: Quota) -> None:
        """Apply a changed configuration. Known callers keep what PostgreSQL has reported."""
        is_other_rule = settings.on_database_outage != self._settings.on_database_outage
        self._settings = settings
        for caller in self if is_other_rule else ():
            rules = self._rules(caller.key[1]) if caller.balance is None else caller.balance.project_quota
            caller.policy, _ = limits.parse(rules, settings)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Caller]:
        return iter(tuple(self._by_key.values()))

    def get(self, user_id: str, project_id: str, now: float) -> Caller | None:
        """Return the caller's state, created on first use; `None`: it is new, and all others must be remembered.

        Half a microsecond for a known one.
        """
        key = (user_id, project_id)
        caller = self._by_key.get(key)
        if caller is None:
            if not self._make_room(now):
                return None
            caller = self._by_key[key] = self.stranger(user_id, project_id, now)
        else:
            self._by_key.move_to_end(key)
        caller.used_at = now
        return caller

    def known(self, user_id: str, project_id: str) -> Caller | None:
        """Return the caller's state if there is one."""
        return self._by_key.get((user_id, project_id))

    def drop(self, caller: Caller) -> None:
        """Remove a caller of which nothing is held."""
        self._by_key.pop(caller.key, None)

    def stranger(self, user_id: str, project_id: str, now: float) -> Caller:
        """Return the state of a new caller, without keeping it."""
        policy, _ = limits.parse(self._rules(project_id), self._settings)
        caller = Caller(Account(user_id, project_id), policy, now)
        if policy.has_short_windows:
            caller.windows = ShortWindows()
            caller.windows.configure(policy, 1)
        return caller

    def _make_room(self, now: float) -> bool:
        """Evict callers until one more fits; `False`: too few can go."""
        most = self._settings.max_callers
        excess = len(self._by_key) - most + 1
        if excess <= 0:
            return True
        for caller in tuple(islice(self._by_key.values(), _LOOKED_AT)):
            if not excess:
                break
            if not caller.is_forgettable(now):
                self._by_key.move_to_end(caller.key)
            else:
                self.forget(caller)
                self.drop(caller)
                excess -= 1
        return excess <= most // _LOOKED_AT + 1


def _know_nothing(_: str) -> None:
    """Default for `rules`: no project is known."""


def _keep_nothing(_: Caller) -> None:
    """Placeholder until the keeper is connected."""
