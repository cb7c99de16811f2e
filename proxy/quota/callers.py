"""All callers of this replica, at most `max_callers`: the longest unused give way, never one with running requests."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from proxy.config.quota import Quota
from proxy.quota import limits
from proxy.quota.caller import Caller
from proxy.quota.lease import Account


class Callers:
    """Finds the state of a caller; least recently used first."""

    def __init__(self, settings: Quota) -> None:
        self._settings = settings
        self._default, _ = limits.parse(None, settings)
        self._by_key: OrderedDict[tuple[str, str], Caller] = OrderedDict()
        self.forget: Callable[[Caller], None] = _keep_nothing
        """Called with each caller that gives way."""

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
            caller = self._by_key[key] = Caller(Account(user_id, project_id), self._default, now)
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

    def _make_room(self, now: float) -> None:
        if len(self._by_key) < self._settings.max_callers:
            return
        for caller in self._by_key.values():
            if caller.is_quiet and caller.has_idle_windows(now):
                self.forget(caller)
                self.drop(caller)
                return


def _keep_nothing(_: Caller) -> None:
    """Stand in until the keeper is connected."""
