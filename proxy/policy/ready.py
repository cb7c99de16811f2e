"""The policies of all projects, compiled before they are needed a second time.

Projects without settings share the policy of the process, which is built once, after the process listens. Any other is
built once per version of its settings, on a thread, and cached; equal settings of several projects share one. Requests
that arrive before wait for it, at most `compile_wait_s`; once that was exceeded, later requests do not wait for it.

Failure mode: if a policy is not ready in time, the project's previous one is used; if this process has none (after a
start, or if the project had no settings), `PolicyUnavailable`. An unusable pattern of a project is skipped and logged
once, never quoted; the API would not have accepted it.
"""

import asyncio
import logging
import threading
from collections import OrderedDict
from weakref import WeakValueDictionary

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings
from proxy.errors import PolicyUnavailable
from proxy.policy import automata, prefixes
from proxy.policy.gates import Gates
from proxy.policy.policy import NO_SECURITY, Policy, detector_of, load_rules, own_rules

_log = logging.getLogger("sidegate.policy")


class Policies:
    """Maps projects to policies.

    Raises:
        RuleError: the rules of the process are invalid.
    """

    def __init__(self, settings: Settings, gates: Gates | None = None) -> None:
        """`gates`: of the process, if it has some already."""
        self.gates = gates or Gates()
        self.settings = settings
        self._base = load_rules(settings.rules_file)
        self._default: Policy | None = None
        self._preparing = threading.Lock()
        self._ready: OrderedDict[int, tuple[SecuritySettings, Policy]] = OrderedDict()
        self._by_content: WeakValueDictionary[str, Policy] = WeakValueDictionary()
        self._building: dict[int, asyncio.Task[Policy]] = {}
        self._late: set[int] = set()
        """Those of them that somebody has waited for in vain."""
        self._former: OrderedDict[str, Policy] = OrderedDict()
        """Project -> the policy that was last ready for it."""
        self.served_former = 0
        """Number of requests that got their project's previous policy."""

    def prepare(self) -> Policy:
        """Return the policy of the process, built if needed in some tenths of a second. Thread-safe."""
        with self._preparing:
            if self._default is None:
                policy = self._made(NO_SECURITY)
                if not self.gates.is_serving:
                    policy.compile_gates()  # whole, as no request is served with them yet
                    self.gates.begin_serving()
                policy.prepare()
                self._default = policy
                # Most processes build no other policy. One that does so for projects keeps the 2 MB for the next one.
                automata.forget_patterns()
                prefixes.forget_patterns()
            return self._default

    def get_now(self, security: SecuritySettings) -> Policy | None:
        """Return the policy if it is ready. `security`: the directory's own object, the same for one version."""
        if security is NO_SECURITY:
            return self._default
        found = self._ready.get(id(security))
        if found is None:
            return None
        self._ready.move_to_end(id(security))
        return found[1]

    async def get(self, security: SecuritySettings, project_id: str | None = None) -> Policy:
        """Return the policy, built if needed. Raises PolicyUnavailable.

        `project_id`: the project whose previous policy may be used meanwhile; `None`: only the current one will do.
        """
        policy = self.get_now(security) or await self._built(security, project_id)
        if project_id is not None:
            self._former[project_id] = policy
            self._former.move_to_end(project_id)
            if len(self._former) > self.settings.max_projects:
                self._former.popitem(last=False)
        return policy

    async def _built(self, security: SecuritySettings, project_id: str | None) -> Policy:
        key, former = id(security), None if project_id is None else self._former.get(project_id)
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._make(security), name="policy of a project")
            task.add_done_callback(lambda _: self._done(key))
        if former is None or key not in self._late:
            try:
                async with asyncio.timeout(self.settings.compile_wait_s):
                    return await asyncio.shield(task)
            except TimeoutError:
                self._late.add(key)
        if former is None:
            raise PolicyUnavailable(
                "The policy of this project is not ready yet; send the request again.", status=503, retry_after_s=1.0
            )
        self.served_former += 1
        return former

    def _done(self, key: int) -> None:
        self._building.pop(key, None)
        self._late.discard(key)

    async def _make(self, security: SecuritySettings) -> Policy:
        if security == NO_SECURITY:
            policy = await asyncio.to_thread(self.prepare)
        else:
            policy = await self._own(security)
        if security is not NO_SECURITY:
            self._ready[id(security)] = security, policy
            while len(self._ready) > self.settings.max_projects:
                self._ready.popitem(last=False)
        return policy

    async def _own(self, security: SecuritySettings) -> Policy:
        content = security.model_dump_json()
        policy = self._by_content.get(content)
        if policy is None:
            policy = self._by_content[content] = await asyncio.to_thread(self._build, security)
        return policy

    def _build(self, security: SecuritySettings) -> Policy:
        policy = self._made(security)
        policy.prepare()
        return policy

    def _made(self, security: SecuritySettings) -> Policy:
        own, problems = own_rules(security)
        for problem in problems:
            _log.warning("a rule of a project is skipped", extra={"problem": problem})
        compiled, ids = detector_of(self._base, security, own, self.gates)
        return Policy(self.settings, security, compiled, ids)
