"""Phase 1 in mode `trusted`: the request says who calls, as it may for a sidecar on loopback.

Precedence of the user: `X-Sidegate-User`, then the body's `safety_identifier` or `user`, then the configured default.
Of the project: `X-Sidegate-Project`, then `OpenAI-Project`, then the default. Names have at most 256 printable
characters in 512 bytes, as they end up in SQL, JSON and logs. An unusable name in one of our own headers is refused,
one from elsewhere ignored. `X-Sidegate-Request-Type` says what a request is for, `X-Sidegate-Priority` how much it
matters, where the project lets requests say so.

Source: OpenAI API reference, "Authentication" (OpenAI-Project) and "Safety identifiers".
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final, get_args

from proxy.config.project import AdmissionSettings, Priority
from proxy.config.schema import Identity
from proxy.credentials import cover_shapes
from proxy.errors import InvalidRequest
from proxy.exchange import Principal

_MAX_NAME = 256
_MAX_NAME_BYTES = 512  # some indexes hold three names, in 2,700 bytes
_PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)


def identify(fields: Mapping[bytes, bytes], settings: Identity) -> Principal:
    """Return the caller that the headers name, with configured defaults for the rest.

    Raises:
        InvalidRequest: `X-Sidegate-User` or `X-Sidegate-Project` is empty, too long or not printable.
    """
    user = _own_name(fields, b"x-sidegate-user")
    project = _own_name(fields, b"x-sidegate-project") or _hint(fields, b"openai-project")
    return Principal(
        user_id=user or settings.default_user,
        project_id=project or settings.default_project,
        source="header" if user else "default",
    )


def with_body_hint(principal: Principal, hint: str | None) -> Principal:
    """Return the principal with the user that the body names, unless a header named one."""
    if principal.source != "default" or hint is None or (name := _usable(hint)) is None:
        return principal
    return replace(principal, user_id=name, source="body")


def conversation_hint(fields: Mapping[bytes, bytes]) -> str | None:
    """Return the conversation that `X-Sidegate-Conversation` names, if that is a usable name."""
    return _hint(fields, b"x-sidegate-conversation")


def request_type_hint(fields: Mapping[bytes, bytes], known: Collection[str]) -> str | None:
    """Return the request type that `X-Sidegate-Request-Type` names, `None` without the header.

    Raises:
        InvalidRequest: it is not in `known`. Analytics keep sums for each type, so the set is closed.
    """
    value = fields.get(b"x-sidegate-request-type")
    return None if value is None else _word(value, "X-Sidegate-Request-Type", known)


def is_critical(fields: Mapping[bytes, bytes], settings: AdmissionSettings) -> bool:
    """Tell whether a request is critical, so that it is admitted while others are shed.

    Raises:
        InvalidRequest: the project honours `X-Sidegate-Priority`, and its value is not a priority.
    """
    value = fields.get(b"x-sidegate-priority") if settings.priority_header else None
    if value is None:
        return settings.priority == "critical"
    return _word(value, "X-Sidegate-Priority", _PRIORITIES) == "critical"


def _word(value: bytes, header: str, known: Collection[str]) -> str:
    name = value.strip().decode("latin-1").lower()
    if name not in known:
        allowed = ", ".join(known)
        raise InvalidRequest(f"The header {header} must be one of {allowed}.", code="invalid_header", param=header)
    return name


def _own_name(fields: Mapping[bytes, bytes], field: bytes) -> str | None:
    value = fields.get(field)
    if value is None:
        return None
    name = _usable(value.decode("utf-8", "replace"))
    if name is None:
        header = field.decode().title()
        raise InvalidRequest(
            f"The header {header} must hold 1 to {_MAX_NAME} printable characters in {_MAX_NAME_BYTES} bytes.",
            code="invalid_header",
            param=header,
        )
    return name


def _hint(fields: Mapping[bytes, bytes], header: bytes) -> str | None:
    value = fields.get(header)
    return None if value is None else _usable(value.decode("utf-8", "replace"))


def _usable(name: str) -> str | None:
    name = name.strip()
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or "\ufffd" in name:
        return None
    if not name.isascii() and len(name.encode()) > _MAX_NAME_BYTES:
        return None
    # Names are stored in quotas, leases and traces, and somebody may have put a key here.
    return cover_shapes(name.encode("utf-8", "replace")).decode()
