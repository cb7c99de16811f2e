"""The management API: one table of method, path, handler and permission.

The ingress calls `match` for every request before relaying it, so a path that is not ours must cost next to nothing:
its first segment is looked up in a dict (0.3 microseconds for any other path).

Paths below `/v1/` are shared with the provider, so a path is ours only if the table says so: `/v1/traces/ingest` is the
provider's (OpenAI's Agents SDK uploads there) and is relayed. A path of ours with the wrong method is answered 405 with
`Allow`, HEAD included: it must not reach a provider.

Source: RFC 9110 sections 9.1, 15.5.6.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api.access import Access
from proxy.api.analytics import AnalyticsApi
from proxy.api.answering import Handler, cached_or_made, is_conditional, unless_known
from proxy.api.audit import Audit
from proxy.api.caller import Caller
from proxy.api.dashboard import Dashboard
from proxy.api.keys import Keys
from proxy.api.members import Members
from proxy.api.openapi import OpenApi
from proxy.api.organizations import Organizations
from proxy.api.policy import PolicyApi
from proxy.api.project_config import ProjectConfigs
from proxy.api.projects import Projects
from proxy.api.quotas import Quotas
from proxy.api.response_cache import ResponseCache
from proxy.api.routing import RoutingApi
from proxy.api.traces import Traces
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore
from proxy.auth.roles import Permission
from proxy.auth.store import MemberStore
from proxy.errors import DatabaseUnavailable, InvalidRequest
from proxy.openai.error_body import render
from proxy.policy.ready import Policies
from proxy.projects.directory import Directory
from proxy.quota.ledger import Ledger
from proxy.tenants.store import TenantStore
from proxy.trace.store import TraceStore

PublicHandler = Callable[[web.BaseRequest], web.Response]

_PREFIX = "/v1/"
_PROVIDERS_OWN = frozenset({"/v1/traces/ingest"})
_RETRY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the table. A path segment in braces matches any text and is passed to the handler under that name."""

    method: str
    path: str
    handler: Handler
    permission: Permission | None
    """`None`: any valid key will do."""
    cached: bool = False
    """Responses are cached for `api.cache_s`; such a path has no arguments."""
    public: bool = False


@dataclass(frozen=True, slots=True)
class PublicEndpoint:
    """One row that needs no key. Its handler gets no caller, because nobody was authenticated."""

    method: str
    path: str
    handler: PublicHandler
    permission: None = None
    public: bool = True


@dataclass(frozen=True, slots=True)
class Stores:
    """What the handlers read and write."""

    traces: TraceStore
    quotas: Ledger
    analytics: Analytics
    rollup: Rollup
    keys: KeyStore
    keyring: Keyring
    audit: AuditLog
    policies: Policies
    projects: Directory
    tenants: TenantStore
    members: MemberStore
    cache: ResponseCache
    default_project: str
    """The project of requests that name none; it cannot be archived."""
    auth_mode: str | None
    """How this process identifies who calls models; `None` if it serves none."""


@dataclass(frozen=True, slots=True)
class Route:
    """The match of a request. `endpoint` is `None` if the path exists, but not with this method."""

    endpoint: Endpoint | PublicEndpoint | None
    arguments: Mapping[str, str]
    allowed: tuple[str, ...]


class Api:
    """Matches and answers requests to the management API."""

    def __init__(self, stores: Stores, routing: RoutingApi, admin_key_hash: bytes) -> None:
        self._access = Access(admin_key_hash, stores.keyring)
        self._dashboard = Dashboard()
        self._cache = stores.cache
        of_traces = Traces(stores.traces)
        of_quotas = Quotas(stores.quotas, stores.audit, stores.tenants, stores.default_project)
        of_analytics = AnalyticsApi(stores.analytics, stores.rollup, stores.audit)
        of_keys = Keys(stores.keys, stores.keyring, stores.audit, stores.tenants)
        of_audit = Audit(stores.audit, stores.auth_mode)
        of_policy = PolicyApi(stores.policies, stores.projects)
        of_organizations = Organizations(stores.tenants, stores.audit)
        of_projects = Projects(stores.tenants, stores.keyring, stores.audit, stores.default_project)
        of_configs = ProjectConfigs(stores.tenants, stores.audit)
        of_members = Members(stores.members, stores.tenants, stores.keys, stores.keyring, stores.audit)
        self.table: tuple[Endpoint, ...] = (
            Endpoint("GET", "/v1/traces", of_traces.search, "traces:read"),
            Endpoint("GET", "/v1/traces/{traceId}", of_traces.get, "traces:read"),
            Endpoint("GET", "/v1/quota/status", of_quotas.status, "quota:read", cached=True),
            Endpoint("GET", "/v1/quota/top", of_quotas.top, "quota:read"),
            Endpoint("POST", "/v1/quota/update", of_quotas.update, "quota:write"),
            Endpoint("POST", "/v1/quota/reset", of_quotas.reset, "quota:write"),
            Endpoint("GET", "/v1/analytics", of_analytics.usage, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/top-expensive", of_analytics.top_expensive, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/error-rate", of_analytics.error_rate, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/series", of_analytics.series, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/policy", of_analytics.policy, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/cache", of_analytics.cache, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/latency", of_analytics.latency, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/users", of_analytics.users, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/projects", of_analytics.projects, "analytics:read", cached=True),
            Endpoint("GET", "/v1/analytics/check", of_analytics.check, "analytics:rebuild"),
            Endpoint("POST", "/v1/analytics/rebuild", of_analytics.rebuild, "analytics:rebuild"),
            Endpoint("GET", "/v1/sidegate/whoami", of_audit.whoami, None),
            Endpoint("GET", "/v1/sidegate/keys", of_keys.list, "keys:read"),
            Endpoint("POST", "/v1/sidegate/keys", of_keys.create, "keys:write"),
            Endpoint("POST", "/v1/sidegate/keys/{keyId}/rotate", of_keys.rotate, "keys:write"),
            Endpoint("POST", "/v1/sidegate/keys/{keyId}/revoke", of_keys.revoke, "keys:write"),
            Endpoint("GET", "/v1/sidegate/organizations", of_organizations.list, "organizations:read"),
            Endpoint("POST", "/v1/sidegate/organizations", of_organizations.create, "organizations:write"),
            Endpoint("GET", "/v1/sidegate/organizations/{organizationId}", of_organizations.get, "organizations:read"),
            Endpoint(
                "PATCH", "/v1/sidegate/organizations/{organizationId}", of_organizations.change, "organizations:write"
            ),
            Endpoint(
                "DELETE", "/v1/sidegate/organizations/{organizationId}", of_organizations.delete, "organizations:write"
            ),
            Endpoint("GET", "/v1/sidegate/projects", of_projects.list, "project:read"),
            Endpoint("POST", "/v1/sidegate/projects", of_projects.create, "projects:write"),
            Endpoint("GET", "/v1/sidegate/projects/{projectId}", of_projects.get, "project:read"),
            Endpoint("PATCH", "/v1/sidegate/projects/{projectId}", of_projects.change, "project:write"),
            Endpoint("DELETE", "/v1/sidegate/projects/{projectId}", of_projects.archive, "projects:write"),
            Endpoint("POST", "/v1/sidegate/projects/{projectId}/restore", of_projects.restore, "projects:write"),
            Endpoint("GET", "/v1/sidegate/projects/{projectId}/config", of_configs.get, "project:read"),
            Endpoint("PUT", "/v1/sidegate/projects/{projectId}/config", of_configs.put, "project:write"),
            Endpoint("GET", "/v1/sidegate/projects/{projectId}/members", of_members.list, "members:read"),
            Endpoint("PUT", "/v1/sidegate/projects/{projectId}/members/{userId}", of_members.put, "members:write"),
            Endpoint(
                "DELETE", "/v1/sidegate/projects/{projectId}/members/{userId}", of_members.remove, "members:write"
            ),
            Endpoint("GET", "/v1/sidegate/users", of_members.users, "members:read"),
            Endpoint("GET", "/v1/sidegate/audit", of_audit.list, "audit:read"),
            Endpoint("POST", "/v1/route", routing.explain, "routing:read"),
            Endpoint("GET", "/v1/sidegate/upstreams", routing.upstreams, "upstreams:read"),
            Endpoint("POST", "/v1/sidegate/policy/test", of_policy.test, "policy:test"),
        )
        openapi = OpenApi()
        self.public: tuple[PublicEndpoint, ...] = (PublicEndpoint("GET", "/v1/sidegate/openapi.json", openapi.get),)
        openapi.describe((*self.table, *self.public))
        self._by_first_segment = _index((*self.table, *self.public))

    def match(self, method: str, path: str) -> Route | None:
        """Return the route of a request, `None` if the path is not ours. `path`: without the query."""
        end = path.find("/", 4)
        endpoints = self._by_first_segment.get(path[4:] if end < 0 else path[4:end])
        if endpoints is None or not path.startswith(_PREFIX) or path in _PROVIDERS_OWN:
            return None
        segments = path.split("/")
        matching = {row.method: (row, found) for row in endpoints if (found := _arguments(row, segments)) is not None}
        if not matching:
            return None
        endpoint, arguments = matching.get(method, (None, {}))
        return Route(endpoint, arguments, tuple(sorted(matching)))

    def page(self, request: web.BaseRequest) -> web.Response:
        """Answer a request below `/ui`, without a key. Raises InvalidRequest: 404."""
        return self._dashboard.answer(request)

    async def handle(self, request: web.BaseRequest, route: Route) -> web.Response:
        """Answer a request that `match` found.

        Raises:
            ProxyError: one of its leaves; the ingress renders it.
        """
        if route.endpoint is None:
            return _method_not_allowed(request.method, route.allowed)
        if isinstance(route.endpoint, PublicEndpoint):
            return route.endpoint.handler(request)
        try:
            caller = await self._access.identify(request.headers.getall("Authorization", []), request.remote)
            if route.endpoint.permission is not None:
                caller.require(route.endpoint.permission)
            return await self._answer(request, route.endpoint, route.arguments, caller)
        except DatabaseUnavailable as error:
            message = f"{error.message} Try again; meanwhile usage is kept in the journal."
            raise DatabaseUnavailable(message, retry_after_s=_RETRY_AFTER_S) from error

    async def _answer(
        self, request: web.BaseRequest, endpoint: Endpoint, arguments: Mapping[str, str], caller: Caller
    ) -> web.Response:
        if endpoint.method != "GET":
            try:
                return await endpoint.handler(request, arguments, caller)
            finally:
                self._cache.drop()
        if endpoint.cached:
            response = await cached_or_made(self._cache, endpoint.path, endpoint.handler, request, caller)
        else:
            response = await endpoint.handler(request, arguments, caller)
        return unless_known(request, response) if is_conditional(endpoint.handler) else response


def _index(table: tuple[Endpoint | PublicEndpoint, ...]) -> dict[str, tuple[Endpoint | PublicEndpoint, ...]]:
    index: dict[str, tuple[Endpoint | PublicEndpoint, ...]] = {}
    for endpoint in table:
        first = endpoint.path.split("/")[2]
        index[first] = (*index.get(first, ()), endpoint)
    return index


def _arguments(endpoint: Endpoint | PublicEndpoint, segments: list[str]) -> dict[str, str] | None:
    """Return the named segments of a matching path, percent-decoded; `None` if the path does not match."""
    pattern = endpoint.path.split("/")
    if len(pattern) != len(segments):
        return None
    found = {}
    for name, segment in zip(pattern, segments, strict=True):
        if name.startswith("{") and segment:
            found[name[1:-1]] = unquote(segment)
        elif name != segment:
            return None
    return found


def _method_not_allowed(method: str, allowed: tuple[str, ...]) -> web.Response:
    names = ", ".join(allowed)
    error = InvalidRequest(f"{method} is not allowed here. Allowed: {names}.", status=405, code="method_not_allowed")
    status, headers, body = render(error)
    response = web.Response(status=status, body=body, headers=[(k.decode(), v.decode()) for k, v in headers])
    response.headers["Allow"] = names
    return response
