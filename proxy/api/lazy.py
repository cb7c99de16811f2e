"""The management API, built on first use: most sidecars never serve it, and importing it loads aiohttp.

Rule of the file: it knows the first path segments of the table in `routes`, and imports nothing that imports aiohttp.
"""

from dataclasses import dataclass
from typing import Any, Final

from proxy.api.response_cache import ResponseCache
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore
from proxy.config.schema import Config
from proxy.db.pool import Connections
from proxy.phases.planner import Planner
from proxy.policy.ready import Policies
from proxy.process.lazy import imported
from proxy.projects.directory import Directory
from proxy.quota.ledger import Ledger
from proxy.routing.health import Health

ASSEMBLE: Final = "proxy.api.assembly:assemble"
"""Builds the API; loads aiohttp."""
FIRST_SEGMENTS: Final = frozenset({"traces", "quota", "analytics", "sidegate", "route"})


def may_be_ours(target: str) -> bool:
    """Tell whether a target, with or without its query, may be in the table or below the dashboard."""
    if target.startswith("/ui"):
        return True
    segment, _, _ = target[4:].partition("?")[0].partition("/")
    return segment in FIRST_SEGMENTS and target.startswith("/v1/")


@dataclass(frozen=True, slots=True)
class ApiParts:
    """The parts of the proxy that the API reads and changes."""

    config: Config
    admin_key: str
    database: Connections
    ledger: Ledger
    keys: KeyStore
    keyring: Keyring
    policies: Policies
    projects: Directory
    planner: Planner
    health: Health
    cache: ResponseCache


class LazyApi:
    """`routes.Api`, built at the first path that may be ours. `assemble`: names the function that builds it."""

    def __init__(self, parts: ApiParts, assemble: str = ASSEMBLE) -> None:
        self._parts = parts
        self._assemble = assemble
        self._api: Any = None

    def match(self, method: str, path: str) -> Any | None:
        """Return the route of a request, `None` if the path is not ours."""
        if not may_be_ours(path):
            return None
        return self._made().match(method, path)

    async def handle(self, request: Any, route: Any) -> Any:
        """Answer a request that `match` found. Raises ProxyError."""
        return await self._made().handle(request, route)

    def page(self, request: Any) -> Any:
        """Answer a request for a file of the dashboard. Raises ProxyError."""
        return self._made().page(request)

    def _made(self) -> Any:
        if self._api is None:
            self._api = imported(self._assemble)(self._parts)
        return self._api
