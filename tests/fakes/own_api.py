"""The management API over one database, as `app` wires it, and a server in front of it."""

import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import cast

from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api.response_cache import ResponseCache
from proxy.api.routes import Api, Stores
from proxy.api.routing import RoutingApi
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore, digest
from proxy.auth.store import MemberStore
from proxy.config import schema
from proxy.config.layers import Layers
from proxy.db.pool import Database
from proxy.errors import ProxyError
from proxy.openai.error_body import render
from proxy.phases.planner import Planner
from proxy.policy.ready import Policies
from proxy.projects.directory import Directory
from proxy.quota.ledger import Ledger
from proxy.routing.catalogue import Catalogue
from proxy.routing.health import Health
from proxy.tenants.store import TenantStore
from proxy.trace.store import TraceStore
from proxy.upstream.pricing import PriceTable
from proxy.upstream.pricing import load as load_prices
from tests.fakes import described
from tests.fakes.projects import Projects
from tests.quota.replica import without_limits

ADMIN_KEY = "admin-0123456789"

Serve = Callable[..., Awaitable[TestClient[web.BaseRequest, None]]]
"""Starts a server of the management API: `await serve(database, quota)`."""


_POLICY = schema.Policy()


def policies(settings: schema.Policy = _POLICY) -> Policies:
    return _shipped() if settings == _POLICY else Policies(settings)


@cache
def _shipped() -> Policies:
    """Compiling the rules takes long."""
    policies = Policies(_POLICY)
    policies.prepare()
    return policies


@cache
def prices() -> PriceTable:
    """Reading the table takes as long as a test."""
    return load_prices(None, schema.Config().prices)


def stores(database: Database, quota: schema.Quota | None = None, auth: schema.Auth | None = None) -> Stores:
    keys = KeyStore(database)
    return Stores(
        traces=TraceStore(database, schema.Database()),
        quotas=Ledger(database, quota or schema.Quota(), "api"),
        analytics=Analytics(database),
        rollup=Rollup(database, 3650),
        keys=keys,
        keyring=Keyring(auth or schema.Auth(), keys, clock=time.monotonic),
        audit=AuditLog(database),
        policies=policies(),
        projects=Projects(),  # type: ignore[arg-type]
        tenants=TenantStore(database),
        members=MemberStore(database),
        cache=ResponseCache(schema.Api(cache_s=0), tuple),
        default_project="default-project",
        auth_mode="trusted",
    )


def routing(config: schema.Config | None = None) -> RoutingApi:
    config = config or schema.Config()
    health = Health(config.providers, config.routing.breaker, lambda: 0.5)
    planner = Planner(
        config,
        catalogue=Catalogue(config.providers, Layers()),
        health=health,
        prices=prices(),
        quotas=without_limits(config.quota),
    )
    return RoutingApi(config, planner, health, cast("Directory", Projects()), policies(config.policy))


def own_api(database: Database, quota: schema.Quota | None = None) -> Api:
    return Api(stores(database, quota), routing(), digest(ADMIN_KEY))


def handler(api: Api):
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        route = api.match(request.method, request.raw_path.partition("?")[0])
        assert route is not None
        try:
            answer = await api.handle(request, route)
        except ProxyError as error:
            status, headers, body = render(error)
            named = [(name.decode(), value.decode()) for name, value in headers]
            answer = web.Response(status=status, body=body, headers=named)
        if route.endpoint is not None:
            described.check(api, route.endpoint, answer)
        return answer

    return handle
