"""All callers of this replica, at most `max_callers`: the longest unused give way, never one with running requests.

A caller that is new here follows its project's rules as they were last known, so that they count while PostgreSQL is
away too; what PostgreSQL says with its first answer then replaces them (`keeper`).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from proxy.config.quota import Quota
from proxy.quota import limits
from proxy.quota.caller import Caller
from proxy.quota.lease import Account
from proxy.quota.windows import ShortWindows


class Callers:
    """Finds the state of a caller; least recently used first. `rules`: what is known of a project's rules, as JSON."""

    def __init__(self, settings: Quota, rules: Callable[[str], str | None] | None = None) -> None:
        self._settings = settings
        self._rules = rules or _know_nothing
        self._by_key: OrderedDict[tuple[str, str], Caller] = OrderedDict()
        self.forget: Callable[[Caller], None] = _keep_nothing
        """Called with each caller that gives way."""

    def follow(self, settings: Quota) -> None:
        """Take over a changed configuration. Who is known keeps what PostgreSQL has said."""
        is_other_rule = settings.on_database_outage != self._settings.on_database_outage
        self._settings = settings
        for caller in self if is_other_rule else ():
            rules = self._rules(caller.key[1]) if caller.balance is None else caller.balance.project_quota
            caller.policy, _ = limits.parse(rules, settings)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Caller]:
        return iter(tuple(self._by_key.values()))

    def get(self, user_id: str, project_id: str, now: float) -> Caller:
        """Return the caller's state, made when it is first seen. About half a microsecond when it is known."""
        key = (user_id, project_id)
        caller = self._by_key.get(key)
        if caller is None:
            self._make_room(now)
            caller = self._by_key[key] = self._make(user_id, project_id, now)
        else:
            self._by_key.move_to_end(key)
        caller.used_at = now
        return caller

    def known(self, user_id: str, project_id: str) -> Caller | None:
        """Return the caller's state if there is one."""
        return self._by_key.get((user_id, project_id))

    def drop(self, caller: Caller) -> None:
        """Forget a caller of whom nothing is held."""
        self._by_key.pop(caller.key, None)

    def _make(self, user_id: str, project_id: str, now: float) -> Caller:
        policy, _ = limits.parse(self._rules(project_id), self._settings)
        caller = Caller(Account(user_id, project_id), policy, now)
        if policy.has_short_windows:
            caller.windows = ShortWindows()
            caller.windows.configure(policy, 1)
        return caller

    def _make_room(self, now: float) -> None:
        if len(self._by_key) < self._settings.max_callers:
            return
        for caller in self._by_key.values():
            if caller.is_quiet and caller.has_idle_windows(now):
                self.forget(caller)
                self.drop(caller)
                return


def _know_nothing(_: str) -> None:
    """Know no project."""


def _keep_nothing(_: Caller) -> None:
    """Stand in until the keeper is connected."""
