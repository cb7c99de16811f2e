"""Who asks the API of our own, and how far that caller may see.

The holder of the admin key is the operator: everything, everywhere. A key of a user sees one project, with the user's
role there. Another project does not exist for it: 404, as for one that nobody has.
"""

from dataclasses import dataclass
from datetime import datetime

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
        """What the user is in the project, as far as the key goes."""
        return None if self.key is None else self.key.role

    @property
    def models(self) -> frozenset[str] | None:
        """The models that the key is limited to; `None`: all."""
        return None if self.key is None else scope(self.key.scopes.get("models"))

    @property
    def operations(self) -> frozenset[str] | None:
        """The operations that the key is limited to, names or kinds; `None`: all."""
        return None if self.key is None else scope(self.key.scopes.get("operations"))

    @property
    def is_operator(self) -> bool:
        """True for the holder of the admin key."""
        return self.key is None

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
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
        """Return the project to read: that asked for, by default the caller's own; `None` is all, for the operator.

        Raises:
            InvalidRequest: 404, it is not the caller's.
        """
        if self.project_id is None:
            return asked
        self.check_sees(asked or self.project_id)
        return self.project_id

    def check_sees(self, project_id: str | None) -> None:
        """Raise 404 for a project that is not the caller's."""
        if not self.sees(project_id):
            raise not_found("project", "projectId")

    def sees(self, project_id: str | None) -> bool:
        """Tell whether things of this project exist for the caller."""
        return self.project_id is None or self.project_id == project_id

    def check_outranks(self, role: Role | None) -> None:
        """Raise PermissionDenied if a role is higher than the caller's own: nobody makes more of himself or others."""
        if self.key is not None and rank(role) > rank(self.role):
            raise self.outranked(role)

    def outranked(self, role: Role | None) -> PermissionDenied:
        """Return the refusal of something that needs a higher role."""
        return PermissionDenied(
            f"Only somebody with the role {role}, or the operator, may do this: yours is {self.role}. "
            f"Roles from the least to the most: {', '.join(ROLES)}."
        )

    def check_hands_on(self, scopes: Scopes, expires_at: datetime | None) -> None:
        """Raise PermissionDenied if a key would be more than the caller's own: naming every member that is."""
        if self.key is None:
            return
        beyond = exceeding(scopes, expires_at, self.key.scopes, self.key.expires_at)
        if beyond:
            raise PermissionDenied(
                f"A key hands on no more than it has: {', '.join(beyond)} would go beyond your own key. What yours is "
                "limited to has to be named, and lie within it: see `GET /v1/sidegate/whoami`.",
                code="exceeds_own_key",
                param=beyond[0],
            )

    def role_limit(self, user_id: str) -> Role | None:
        """Return what a key made by this caller may count for at most, whatever its user becomes later.

        For a user's own further keys that is the limit of the key at hand; for those of others, the caller's role.
        """
        if self.key is None:
            return None
        return self.key.role_limit if user_id == self.key.user_id else self.key.role


def not_found(what: str, param: str) -> InvalidRequest:
    """Return the 404 of a thing that is not there, or not for this caller."""
    return InvalidRequest(f"There is no such {what}.", status=404, code=f"{what}_not_found", param=param)


def conflict(code: str, message: str, param: str) -> InvalidRequest:
    """Return the 409 of a change that what is there stands against."""
    return InvalidRequest(message, status=409, code=code, param=param)
