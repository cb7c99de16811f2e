"""The policies of all projects, each ready before it is asked for twice.

A project that decides nothing of its own shares the policy of the process, which is built at the start. Any other is
built once per version of its settings, in a thread, and kept; equal settings of several projects share one. The first
request waits for it, at most `compile_wait_s`.

Failure mode: `PolicyUnavailable` where a policy is not ready in time. A pattern of a project that cannot be used is
left out and logged once, never quoted; nobody could have written it through the API.
"""

import asyncio
import logging
from collections import OrderedDict
from weakref import WeakValueDictionary

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings
from proxy.errors import PolicyUnavailable
from proxy.policy.policy import NO_SECURITY, Policy, detector_of, load_rules, own_rules

_log = logging.getLogger("sidegate.policy")


class Policies:
    """What `Policy` holds for which project.

    Raises:
        RuleError: the rules of the process cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._base = load_rules(settings.rules_file)
        self.default = self._build(NO_SECURITY)
        self._ready: OrderedDict[int, tuple[SecuritySettings, Policy]] = OrderedDict()
        self._by_content: WeakValueDictionary[str, Policy] = WeakValueDictionary({_content(NO_SECURITY): self.default})
        self._building: dict[int, asyncio.Task[Policy]] = {}

    def get_now(self, security: SecuritySettings) -> Policy | None:
        """Return the policy if it is ready. `security`: the directory's own object, the same for one version."""
        if security is NO_SECURITY:
            return self.default
        found = self._ready.get(id(security))
        if found is None:
            return None
        self._ready.move_to_end(id(security))
        return found[1]

    async def get(self, security: SecuritySettings) -> Policy:
        """Return the policy, built if need be. Raises PolicyUnavailable."""
        ready = self.get_now(security)
        if ready is not None:
            return ready
        key = id(security)
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._make(security), name="policy of a project")
            task.add_done_callback(lambda _: self._building.pop(key, None))
        try:
            async with asyncio.timeout(self.settings.compile_wait_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise PolicyUnavailable("The policy of this project is not ready yet.") from None

    async def _make(self, security: SecuritySettings) -> Policy:
        content = _content(security)
        policy = self._by_content.get(content)
        if policy is None:
            for problem in own_rules(security)[1]:
                _log.warning("a rule of a project is left out", extra={"problem": problem})
            policy = self._by_content[content] = await asyncio.to_thread(self._build, security)
        self._ready[id(security)] = security, policy
        while len(self._ready) > self.settings.max_projects:
            self._ready.popitem(last=False)
        return policy

    def _build(self, security: SecuritySettings) -> Policy:
        policy = Policy(self.settings, security, *detector_of(self._base, security))
        policy.prepare()
        return policy


def _content(security: SecuritySettings) -> str:
    return security.model_dump_json()
