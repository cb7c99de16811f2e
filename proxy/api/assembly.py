"""Builds the management API from the parts of the proxy that it shows and changes."""

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api.lazy import ApiParts
from proxy.api.routes import Api, Stores
from proxy.api.routing import RoutingApi
from proxy.auth.audit import AuditLog
from proxy.auth.keys import digest
from proxy.auth.store import MemberStore
from proxy.tenants.store import TenantStore
from proxy.trace.store import TraceStore


def assemble(parts: ApiParts) -> Api:
    """Return the wired API."""
    config, database = parts.config, parts.database
    stores = Stores(
        traces=TraceStore(database, config.database),
        quotas=parts.ledger,
        analytics=Analytics(database),
        rollup=Rollup(database, config.database.retention_days),
        keys=parts.keys,
        keyring=parts.keyring,
        audit=AuditLog(database),
        policies=parts.policies,
        projects=parts.projects,
        tenants=TenantStore(database),
        members=MemberStore(database),
        cache=parts.cache,
        default_project=config.identity.default_project,
        auth_mode=None if config.server.surfaces == "api" else config.auth.mode,
    )
    routing = RoutingApi(config, parts.planner, parts.health, parts.projects, parts.policies)
    return Api(stores, routing, digest(parts.admin_key))
