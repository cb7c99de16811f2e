"""The endpoint of a request target: validation of the target, and the table of endpoints, one row each.

Everything else gets a fallback row: identified, routed, counted and traced like any other request, with its body passed
on unchanged. So does a known path with another method: the provider answers, not we.

Rules of the file. The raw path is only examined, never rebuilt: for the look-up alone, a trailing slash and escapes of
letters and digits (`/v1/%63hat/..`) are normalised, so that no spelling that a provider might accept evades its row.
Answers that repeat usage that was charged before (stored completions, responses, runs) have the dialect `none`.

Source: RFC 9112 section 3.2.1, RFC 3986 section 3.3; OpenAI API reference; the resource paths of the official SDK.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import unquote

from proxy.errors import InvalidRequest
from proxy.exchange import BodyKind, Dialect, Operation

UNKNOWN = Operation("unknown", "other", "raw", "generic", billable=False)
"""Fallback row of requests that do something: if the answer reports usage, it is charged; something must be left."""
UNKNOWN_READ = Operation("unknown", "other", "raw", "none", billable=False)
"""Fallback row of requests that look something up: usage in the answer was charged before."""
UNKNOWN_WEBSOCKET = Operation("unknown", "other", "websocket", "realtime", billable=False)
_WEBSOCKET = "WEBSOCKET"
_ID = "{id}"


def _model(
    name: str,
    request_type: str,
    dialect: Dialect,
    body: BodyKind = "json",
    *,
    gen_ai: str,
    stream_usage: bool = False,
    sent_to: str | None = None,
) -> Operation:
    """Return a row whose answers are billed."""
    return Operation(name, request_type, body, dialect, True, stream_usage, gen_ai, sent_to)


def _free(name: str, request_type: str, body: BodyKind = "none") -> Operation:
    """Return a row whose answers are free."""
    return Operation(name, request_type, body, dialect="none", billable=False)


_CHAT = _model(
    "chat.completions.create", "chat", "chat", gen_ai="chat", stream_usage=True, sent_to="/v1/chat/completions"
)
"""Our names for chat completions, which say what a request is for."""
_TABLE: tuple[tuple[str, str, Operation], ...] = (
    (
        "POST",
        "/chat/completions",
        _model("chat.completions.create", "chat", "chat", gen_ai="chat", stream_usage=True),
    ),
    ("POST", "/chat", _CHAT),
    ("POST", "/code-agent", replace(_CHAT, request_type="code-agent")),
    ("GET", "/chat/completions", _free("chat.completions.list", "chat")),
    ("GET", "/chat/completions/{id}", _free("chat.completions.retrieve", "chat")),
    ("POST", "/chat/completions/{id}", _free("chat.completions.update", "chat", "json")),
    ("DELETE", "/chat/completions/{id}", _free("chat.completions.delete", "chat")),
    ("GET", "/chat/completions/{id}/messages", _free("chat.completions.messages.list", "chat")),
    (
        "POST",
        "/completions",
        _model("completions.create", "completions", "completions", gen_ai="text_completion", stream_usage=True),
    ),
    ("POST", "/responses", _model("responses.create", "responses", "responses", gen_ai="chat")),
    (_WEBSOCKET, "/responses", _model("responses.connect", "responses", "realtime", "websocket", gen_ai="chat")),
    ("POST", "/responses/compact", _model("responses.compact", "responses", "responses", gen_ai="chat")),
    ("POST", "/responses/input_tokens", _free("responses.input_tokens.count", "responses", "json")),
    ("GET", "/responses/{id}", _free("responses.retrieve", "responses")),
    ("DELETE", "/responses/{id}", _free("responses.delete", "responses")),
    ("POST", "/responses/{id}/cancel", _free("responses.cancel", "responses", "json")),
    ("GET", "/responses/{id}/input_items", _free("responses.input_items.list", "responses")),
    ("POST", "/messages", _model("messages.create", "chat", "generic", gen_ai="chat")),
    ("POST", "/messages/count_tokens", _free("messages.count_tokens", "chat", "json")),
    ("POST", "/embeddings", _model("embeddings.create", "embeddings", "embeddings", gen_ai="embeddings")),
    ("POST", "/moderations", _free("moderations.create", "moderations", "json")),
    ("POST", "/images/generations", _model("images.generate", "images", "images", gen_ai="generate_content")),
    ("POST", "/images/edits", _model("images.edit", "images", "images", "multipart", gen_ai="generate_content")),
    (
        "POST",
        "/images/variations",
        _model("images.create_variation", "images", "images", "multipart", gen_ai="generate_content"),
    ),
    ("POST", "/audio/speech", _model("audio.speech.create", "audio", "audio", gen_ai="generate_content")),
    (
        "POST",
        "/audio/transcriptions",
        _model("audio.transcriptions.create", "audio", "audio", "multipart", gen_ai="generate_content"),
    ),
    (
        "POST",
        "/audio/translations",
        _model("audio.translations.create", "audio", "audio", "multipart", gen_ai="generate_content"),
    ),
    ("GET", "/models", _free("models.list", "models")),
    ("GET", "/models/{id}", _free("models.retrieve", "models")),
    ("GET", "/models/{id}/{id}", _free("models.retrieve", "models")),
    ("DELETE", "/models/{id}", _free("models.delete", "models")),
    ("GET", "/files", _free("files.list", "files")),
    ("POST", "/files", _free("files.create", "files", "multipart")),
    ("GET", "/files/{id}", _free("files.retrieve", "files")),
    ("DELETE", "/files/{id}", _free("files.delete", "files")),
    ("GET", "/files/{id}/content", _free("files.content", "files")),
    ("POST", "/uploads", _free("uploads.create", "uploads", "json")),
    ("POST", "/uploads/{id}/parts", _free("uploads.parts.create", "uploads", "multipart")),
    ("POST", "/uploads/{id}/complete", _free("uploads.complete", "uploads", "json")),
    ("POST", "/uploads/{id}/cancel", _free("uploads.cancel", "uploads", "json")),
    ("GET", "/batches", _free("batches.list", "batches")),
    ("POST", "/batches", _free("batches.create", "batches", "json")),
    ("GET", "/batches/{id}", _free("batches.retrieve", "batches")),
    ("POST", "/batches/{id}/cancel", _free("batches.cancel", "batches", "json")),
    (_WEBSOCKET, "/realtime", _model("realtime.connect", "realtime", "realtime", "websocket", gen_ai="chat")),
    ("POST", "/realtime/client_secrets", _free("realtime.client_secrets.create", "realtime", "json")),
    ("POST", "/realtime/sessions", _free("realtime.sessions.create", "realtime", "json")),
    ("POST", "/realtime/transcription_sessions", _free("realtime.transcription_sessions.create", "realtime", "json")),
    ("POST", "/realtime/calls", _free("realtime.calls.create", "realtime", "raw")),
    ("POST", "/realtime/calls/{id}/accept", _free("realtime.calls.accept", "realtime", "json")),
    ("POST", "/realtime/calls/{id}/hangup", _free("realtime.calls.hangup", "realtime", "json")),
    ("POST", "/realtime/calls/{id}/refer", _free("realtime.calls.refer", "realtime", "json")),
    ("POST", "/realtime/calls/{id}/reject", _free("realtime.calls.reject", "realtime", "json")),
)

KINDS: Mapping[str, str] = MappingProxyType(
    {operation.name: operation.request_type for _, _, operation in _TABLE if operation.sent_to is None}
)
"""Name of an operation -> its kind, under its own path."""


@dataclass(slots=True)
class _Node:
    """One path segment of the table."""

    operation: Operation | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)


def _exact(table: Iterable[tuple[str, str, Operation]]) -> dict[tuple[str, str], Operation]:
    return {(method, "/v1" + path): operation for method, path, operation in table if _ID not in path}


def _tree(table: Iterable[tuple[str, str, Operation]]) -> dict[str, _Node]:
    roots: dict[str, _Node] = {}
    for method, path, operation in table:
        node = roots.setdefault(method, _Node())
        for segment in path[1:].split("/"):
            node = node.children.setdefault(segment, _Node())
        node.operation = operation
    return roots


_DEFAULTS = {
    _WEBSOCKET: UNKNOWN_WEBSOCKET,
    "GET": UNKNOWN_READ,
    "HEAD": UNKNOWN_READ,
    "OPTIONS": UNKNOWN_READ,
    "DELETE": UNKNOWN_READ,
}
_EXACT = _exact(_TABLE)
_TREE = _tree(_TABLE)
_ESCAPED_PLAIN = re.compile(r"%(?:2[dD]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")


def operations() -> tuple[Operation, ...]:
    """Return every row of the table, the fallback rows last."""
    return (*(row[2] for row in _TABLE), UNKNOWN, UNKNOWN_READ, UNKNOWN_WEBSOCKET)


def target_of(operation: Operation, target: str) -> str:
    """Return the raw target that providers use for an operation. `target`: the client's."""
    if operation.sent_to is None:
        return target
    _, mark, query = target.partition("?")
    return f"{operation.sent_to}{mark}{query}"


def match(method: str, path: str, upgrade: bool) -> Operation:
    """Return the row of a request whose path `check_target` accepted. `upgrade`: it requests a websocket."""
    if upgrade and method == "GET":
        method = _WEBSOCKET
    known = _EXACT.get((method, path))
    if known is not None:
        return known
    if "%" in path:
        path = _ESCAPED_PLAIN.sub(_unescape, path)
    return _walk(method, path) or _DEFAULTS.get(method, UNKNOWN)


def _walk(method: str, path: str) -> Operation | None:
    node = _TREE.get(method)
    for segment in path.removeprefix("/v1/").removesuffix("/").split("/"):
        if node is None:
            return None
        node = node.children.get(segment) or node.children.get(_ID)
    return node.operation if node else None


def _unescape(escape: re.Match[str]) -> str:
    return unquote(escape[0])


_PLAIN_TARGET = re.compile(r"/v1(?:/[A-Za-z0-9_:~-][A-Za-z0-9_:~.-]*)+")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[!-~]*")
_REFUSED_ESCAPE = re.compile(r"%(?:[01][0-9A-Fa-f]|2[eE5]|3[bB]|5[cC]|7[fF]|[cC][01])")
_CREDENTIAL_IN_QUERY = re.compile(r"(?:^|[&;])(?:api[-_]?key|access[-_]token)=", re.IGNORECASE)
_SLASH = re.compile(r"%2[fF]")
_MODEL_PATH = re.compile(r"/v1/models/[^/]+")


def check_target(target: bytes | str) -> str:
    """Return the path of a raw request target that is safe to append to an upstream's base URL unchanged.

    Raises:
        InvalidRequest: status 400, or 404 for a well-formed path outside of /v1.
    """
    if isinstance(target, bytes):
        target = target.decode("latin-1")
    if _PLAIN_TARGET.fullmatch(target):
        return target
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        raise _refused("The request target must be a path such as /v1/chat/completions, not a URL.")
    if not _PATH.fullmatch(path):
        raise _refused("The path holds a character or an escape that servers read differently; it is not passed on.")
    _check_query(query)
    if _REFUSED_ESCAPE.search(path):
        raise _refused(
            "The path holds an escaped dot, percent sign, semicolon, backslash, control character or malformed UTF-8."
        )
    plain = _SLASH.sub("/", path)
    if plain != path and not _MODEL_PATH.fullmatch(path):
        raise _refused("The path holds an escaped slash; only a model's name may.")
    if not {".", "..", ""}.isdisjoint(plain.removesuffix("/").split("/")[1:]):
        raise _refused("The path holds a dot segment or an empty one.")
    if path != "/v1" and not path.startswith("/v1/"):
        raise InvalidRequest("Unknown path: the API is served under /v1/.", status=404, code="unknown_path")
    return path


def _check_query(query: str) -> None:
    if not _QUERY.fullmatch(query) or "#" in query:
        raise _refused("The query holds a character that a URL query cannot hold.")
    if _CREDENTIAL_IN_QUERY.search(query):
        raise InvalidRequest(
            "The query holds a credential; send it in the Authorization header.", code="credential_in_query"
        )


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_path")
