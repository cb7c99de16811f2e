"""What each role may do: one table, no logic.

    viewer < developer < admin < owner, each within one project; `operator` holds the admin key and may do everything

A role includes those before it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

Role = Literal["viewer", "developer", "admin", "owner"]
Permission = Literal[
    "traces:read",
    "quota:read",
    "analytics:read",
    "project:read",
    "routing:read",
    "models:call",
    "policy:test",
    "quota:write",
    "keys:read",
    "keys:write",
    "members:read",
    "members:write",
    "audit:read",
    "project:write",
    "analytics:rebuild",
    "organizations:read",
    "organizations:write",
    "projects:write",
    "upstreams:read",
]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Lowest first."""

_ADDED: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        "viewer": frozenset({"traces:read", "quota:read", "analytics:read", "project:read", "routing:read"}),
        "developer": frozenset({"models:call", "policy:test"}),
        "admin": frozenset({"quota:write", "keys:read", "keys:write", "members:read", "members:write", "audit:read"}),
        "owner": frozenset({"project:write"}),
    }
)

OPERATOR: Final[frozenset[Permission]] = frozenset(get_args(Permission))
"""What the admin key may do."""
PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {role: frozenset().union(*(_ADDED[lower] for lower in ROLES[: ROLES.index(role) + 1])) for role in ROLES}
)


def rank(role: Role | None) -> int:
    """Return the rank of a role, for comparison; no role is the lowest."""
    return -1 if role is None else ROLES.index(role)
