"""Names that stand in bodies and paths of our own API: of users, projects, keys and organizations.

Callers are kept by their names, in quotas, traces and logs too, so nothing that looks like a credential is one. What
may stand in a path has no sign that servers read in two ways (`openai.operations.check_target` refuses their escapes).
"""

from typing import Final

from proxy.api.parameters import Parameter
from proxy.credentials import resembles_credential

MAX_NAME: Final = 256
_UNSAFE: Final = frozenset("/\\;%")


def name(value: object) -> str:
    """Return a name that a user, a project or a key may have. Raises ValueError."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ValueError
    if not value.isprintable() or value != value.strip() or "\ufffd" in value or resembles_credential(value):
        raise ValueError
    return value


def identifier(value: object) -> str:
    """Return a name that may also stand in a path. Raises ValueError."""
    found = name(value)
    if not _UNSAFE.isdisjoint(found) or found in (".", ".."):
        raise ValueError
    return found


_ALLOWED: Final = f"1 to {MAX_NAME} printable characters without blanks around them, and no credential"
_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
NAME: Final = Parameter(name, _ALLOWED, _SCHEMA)
IDENTIFIER: Final = Parameter(identifier, f"{_ALLOWED}; none of them / \\ ; %", _SCHEMA)


def is_identifier(value: str) -> bool:
    """Tell whether there can be a thing with this name."""
    try:
        identifier(value)
    except ValueError:
        return False
    return True
