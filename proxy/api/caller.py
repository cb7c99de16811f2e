"""Who asks the API of our own, and how far that caller may see.

The holder of the admin key is the operator: everything, everywhere. A key of a user sees one project, with the user's
role there. Another project does not exist for it: 404, as for one that nobody has.
"""

from dataclasses import dataclass

from proxy.auth.audit import Actor
from proxy.auth.roles import ROLES, Permission, Role, rank
from proxy.errors import InvalidRequest, PermissionDenied


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `project_id`, `user_id`, `role` and `key_id` are `None` for the operator."""

    permissions: frozenset[Permission]
    project_id: str | None = None
    user_id: str | None = None
    role: Role | None = None
    key_id: str | None = None
    peer: str | None = None
    models: frozenset[str] | None = None
    """The models that the key is limited to; `None`: all."""

    @property
    def is_operator(self) -> bool:
        """True for the holder of the admin key."""
        return self.project_id is None

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor(self.user_id or "operator", self.key_id, self.peer)

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
        if self.project_id is not None and rank(role) > rank(self.role):
            raise PermissionDenied(
                f"Only somebody with the role {role}, or the operator, may do this: yours is {self.role}. "
                f"Roles from the least to the most: {', '.join(ROLES)}."
            )


def not_found(what: str, param: str) -> InvalidRequest:
    """Return the 404 of a thing that is not there, or not for this caller."""
    return InvalidRequest(f"There is no such {what}.", status=404, code=f"{what}_not_found", param=param)
