"""Build the management API from what the proxy already has."""

from proxy.analytics.queries import Analytics
from proxy.analytics.rollup import Rollup
from proxy.api.kept import KeptAnswers
from proxy.api.routes import Api, Stores
from proxy.api.routing import RoutingApi
from proxy.auth.audit import AuditLog
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore, digest
from proxy.auth.store import MemberStore
from proxy.config.schema import Config
from proxy.db.pool import Connections
from proxy.phases.planner import Planner
from proxy.policy.ready import Policies
from proxy.projects.directory import Directory
from proxy.quota.ledger import Ledger
from proxy.routing.health import Health
from proxy.tenants.store import TenantStore
from proxy.trace.store import TraceStore


def assemble(
    config: Config,
    admin_key: str,
    *,
    database: Connections,
    ledger: Ledger,
    keys: KeyStore,
    keyring: Keyring,
    policies: Policies,
    projects: Directory,
    planner: Planner,
    health: Health,
    kept: KeptAnswers,
) -> Api:
    """Return the wired API."""
    stores = Stores(
        traces=TraceStore(database, config.database),
        quotas=ledger,
        analytics=Analytics(database),
        rollup=Rollup(database, config.database.retention_days),
        keys=keys,
        keyring=keyring,
        audit=AuditLog(database),
        policies=policies,
        projects=projects,
        tenants=TenantStore(database),
        members=MemberStore(database),
        kept=kept,
        default_project=config.identity.default_project,
        auth_mode=None if config.server.surfaces == "api" else config.auth.mode,
    )
    return Api(stores, RoutingApi(config, planner, health, projects, policies), digest(admin_key))
