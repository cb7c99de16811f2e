"""Resolves references to secrets: `${NAME}` in the environment or `file:/path` on disk.

Rules of the file: a reference is the whole value, never a part of one; its target must exist and not be empty; a value
that only looks like a reference is a mistake and not a secret; nothing that was read, or should have been, appears in a
message. Files are read at each load, so a rotated secret is picked up by the next one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proxy.config.files import read_regular

_NAME: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOOKALIKE: Final = re.compile(r"^\$[A-Z_][A-Z0-9_]*$|\$\{|\$\([A-Za-z_][A-Za-z0-9_]*\)")
_FILE: Final = "file:"
_MAX_SECRET_BYTES: Final = 65_536


class BadReference(ValueError):
    """A reference that cannot be resolved. The message names the variable or the file, never a value."""


def is_reference(value: str) -> bool:
    """Tell whether a value points to a secret instead of being one."""
    return value.startswith(_FILE) or _NAME.fullmatch(value) is not None


def is_meant_as_reference(value: str) -> bool:
    """Tell whether a value is a reference, or is so like one that it cannot be meant as it stands."""
    return is_reference(value) or _LOOKALIKE.search(value) is not None


def named_file(value: str) -> Path | None:
    """Return the file that a value refers to, `None` if it is not such a reference."""
    value = value.strip()
    return Path(value.removeprefix(_FILE)) if value.startswith(_FILE) else None


def resolve(value: str, environ: Mapping[str, str]) -> str:
    """Return the secret that `value` refers to, or `value` itself if it is not a reference. White space is stripped.

    Raises:
        BadReference: the variable is not set, the file cannot be used, or the reference is malformed.
    """
    value = value.strip()
    if value.startswith(_FILE):
        return _from_file(value.removeprefix(_FILE))
    if named := _NAME.fullmatch(value):
        found = environ.get(named[1], "").strip()
        if not found:
            raise BadReference(f"refers to the environment variable {named[1]}, which is not set")
        return found
    if _LOOKALIKE.search(value):
        raise BadReference("looks like a reference but is none; write ${NAME} and nothing else, or file:/path")
    return value


def _from_file(name: str) -> str:
    path = Path(name)
    if not name.isprintable():
        raise BadReference("refers to a file whose name cannot be printed")
    if not path.is_absolute():
        raise BadReference("refers to a file by a relative path; write file:/absolute/path")
    try:
        data = read_regular(path, _MAX_SECRET_BYTES)
        text = data.decode().strip()
    except OSError as error:
        raise BadReference(f"refers to the file {name}, which cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadReference(f"refers to the file {name}, which is not UTF-8 text") from None
    if not text:
        raise BadReference(f"refers to the file {name}, which is empty")
    if len(data) > _MAX_SECRET_BYTES:
        raise BadReference(f"refers to the file {name}, which is larger than {_MAX_SECRET_BYTES} bytes")
    return text
