"""Names and ids in bodies and paths of the management API: of users, projects, keys and organizations.

Names end up in quotas, traces and logs, so nothing that looks like a credential is accepted. An id may stand in a path,
so it has none of the characters that servers interpret differently (`openai.operations.check_target` refuses their
escapes).
"""

from typing import Final

from proxy.api.parameters import Parameter
from proxy.credentials import resembles_credential

MAX_NAME: Final = 256
_UNSAFE: Final = frozenset("/\\;%")


def printable(value: object) -> str:
    """Return a name that a request may come with (`auth.identify`). Raises ValueError."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ValueError
    if not value.isprintable() or value != value.strip() or "\ufffd" in value:
        raise ValueError
    return value


def name(value: object) -> str:
    """Return a valid name of a user, project or key. Raises ValueError."""
    found = printable(value)
    if resembles_credential(found):
        raise ValueError
    return found


def identifier(value: object) -> str:
    """Return a valid id, which may also stand in a path. Raises ValueError."""
    found = name(value)
    if not _UNSAFE.isdisjoint(found) or found in (".", ".."):
        raise ValueError
    return found


_PRINTABLE: Final = f"1 to {MAX_NAME} printable characters, no spaces around them"
_ALLOWED: Final = f"{_PRINTABLE}, nothing that looks like a credential"
_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
PRINTABLE: Final = Parameter(printable, _PRINTABLE, _SCHEMA)
NAME: Final = Parameter(name, _ALLOWED, _SCHEMA)
IDENTIFIER: Final = Parameter(identifier, f"{_ALLOWED}, and none of / \\ ; %", _SCHEMA)


def is_identifier(value: str) -> bool:
    """Tell whether anything can have this id."""
    try:
        identifier(value)
    except ValueError:
        return False
    return True
