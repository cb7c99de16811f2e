"""The authenticated caller of the management API, and what it may see and do.

Whoever holds the admin key is the operator and may do everything, everywhere. A user's key sees one project, with the
user's role there. Any other project does not exist for it: 404, the same as for one that was never created.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from proxy.api.names import is_identifier
from proxy.auth.audit import Actor
from proxy.auth.keys import StoredKey
from proxy.auth.roles import ROLES, Permission, Role, rank
from proxy.auth.scopes import Scopes, exceeding, scope
from proxy.errors import InvalidRequest, PermissionDenied


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `key` is `None` for the operator."""

    permissions: frozenset[Permission]
    key: StoredKey | None = None
    peer: str | None = None

    @property
    def project_id(self) -> str | None:
        """The one project of a key; `None` for the operator, who sees all."""
        return None if self.key is None else self.key.project_id

    @property
    def user_id(self) -> str | None:
        """Whose key it is; `None` for the operator."""
        return None if self.key is None else self.key.user_id

    @property
    def role(self) -> Role | None:
        """The user's role in the project, capped by the key's limit."""
        return None if self.key is None else self.key.role

    @property
    def models(self) -> frozenset[str] | None:
        """The models the key is limited to; `None`: all."""
        return None if self.key is None else scope(self.key.scopes.get("models"))

    @property
    def operations(self) -> frozenset[str] | None:
        """The operations the key is limited to, as names or kinds; `None`: all."""
        return None if self.key is None else scope(self.key.scopes.get("operations"))

    @property
    def is_operator(self) -> bool:
        """True for the holder of the admin key."""
        return self.key is None

    @property
    def actor(self) -> Actor:
        """The caller as the audit log records it."""
        if self.key is None:
            return Actor("operator", None, self.peer)
        return Actor(self.key.user_id, self.key.id, self.peer)

    def require(self, permission: Permission) -> None:
        """Raise PermissionDenied if the role does not allow it."""
        if permission not in self.permissions:
            raise PermissionDenied(
                f"This needs the permission {permission}, which the role {self.role or 'none'} does not have here.",
                code="permission_denied",
            )

    def project(self, asked: str | None) -> str | None:
        """Return the project to read: the one asked for, else the caller's own; `None`, for the operator: all.

        Raises:
            InvalidRequest: 404, the project is not the caller's.
        """
        if self.project_id is None:
            return asked
        self.check_sees(asked or self.project_id)
        return self.project_id

    def project_in(self, arguments: Mapping[str, str]) -> str:
        """Return the project that a path names. Raises 404 if it is no valid id, or not the caller's."""
        project_id = arguments["projectId"]
        if not is_identifier(project_id):
            raise not_found("project", "projectId")
        self.check_sees(project_id)
        return project_id

    def check_sees(self, project_id: str | None) -> None:
        """Raise 404 for a project that is not the caller's."""
        if not self.sees(project_id):
            raise not_found("project", "projectId")

    def sees(self, project_id: str | None) -> bool:
        """Tell whether this project exists for the caller."""
        return self.project_id is None or self.project_id == project_id

    def check_outranks(self, role: Role | None) -> None:
        """Raise PermissionDenied if a role is higher than the caller's own: nobody can promote above himself."""
        if self.key is not None and rank(role) > rank(self.role):
            raise self.outranked(role)

    def outranked(self, role: Role | None) -> PermissionDenied:
        """Return the error for something that needs a higher role."""
        return PermissionDenied(
            f"This needs the role {role} or the operator; your role is {self.role}. "
            f"Roles, lowest first: {', '.join(ROLES)}."
        )

    def check_hands_on(self, scopes: Scopes, expires_at: datetime | None) -> None:
        """Raise PermissionDenied if a new key would exceed the caller's own, naming every member that does."""
        if self.key is None:
            return
        beyond = exceeding(scopes, expires_at, self.key.scopes, self.key.expires_at)
        if beyond:
            raise PermissionDenied(
                f"A key cannot exceed the key that creates it: {', '.join(beyond)} would. Name every limit that your "
                "own key has, within its bounds; `GET /v1/sidegate/whoami` shows them.",
                code="exceeds_own_key",
                param=beyond[0],
            )

    def role_limit(self, user_id: str) -> Role | None:
        """Return the highest role that a key created by this caller may ever have, even if its user is promoted later.

        For further keys of the same user it is the limit of the key in use; for other users' keys, the caller's role.
        """
        if self.key is None:
            return None
        return self.key.role_limit if user_id == self.key.user_id else self.key.role


def not_found(what: str, param: str) -> InvalidRequest:
    """Return the 404 for something that does not exist, or not for this caller."""
    return InvalidRequest(f"There is no such {what}.", status=404, code=f"{what}_not_found", param=param)


def conflict(code: str, message: str, param: str) -> InvalidRequest:
    """Return the 409 for a change that conflicts with the current state."""
    return InvalidRequest(message, status=409, code=code, param=param)
