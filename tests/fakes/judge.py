"""What "the same through the proxy as direct" means, and what an error of OpenAI's shape is.

Rule of the file: the differences that the proxy is entitled to are listed here and nowhere else: it frames bodies
itself, drops hop-by-hop and identity headers, and adds its trace id and how the caller stands with its limits.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.connection import Seen
from tests.fakes.wire import Reply

FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive"}
ADDED = {"x-sidegate-trace-id"}
WITHHELD = {"set-cookie", "alt-svc", "proxy-authenticate", "upgrade", "trailer", "te"}
LIMITS = "x-ratelimit-"
NOT_SENT_ON = {b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization"}


def visible_headers(reply: Reply) -> list[tuple[str, str]]:
    """The headers that must be the same direct and through, in order."""
    hidden = FRAMING | ADDED | WITHHELD
    return [(name, value) for name, value in reply.headers if name.lower() not in hidden]


def assert_same(direct: Reply, through: Reply) -> None:
    """Status, reason, headers with case, order and repeats, body bytes, and whether the body was whole."""
    assert (through.status, through.reason) == (direct.status, direct.reason)
    assert without_our_limits(direct, through) == with_request_id(direct, through)
    assert through.body == direct.body
    assert through.ending == direct.ending


def without_our_limits(direct: Reply, through: Reply) -> list[tuple[str, str]]:
    """The caller's own limits stand where the provider tells none; in tests they are never the tighter ones."""
    theirs = {name.lower() for name, _ in direct.headers}
    return [
        (name, value)
        for name, value in visible_headers(through)
        if not name.lower().startswith(LIMITS) or name.lower() in theirs
    ]


def with_request_id(direct: Reply, through: Reply) -> list[tuple[str, str]]:
    """Where the provider sends no `x-request-id`, the trace id stands for it."""
    expected = visible_headers(direct)
    ours, request_id = without_our_limits(direct, through), ("x-request-id", through.trace_id)
    if direct.value("x-request-id") is None and request_id in ours:
        expected.insert(ours.index(request_id), request_id)
    return expected


def assert_same_request(direct: Seen, through: Seen) -> None:
    """What the provider received: method, target, headers with case and order, body bytes."""
    assert (through.method, through.target, through.version) == (direct.method, direct.target, direct.version)
    assert passed_on(through) == passed_on(direct)
    assert (through.body_bytes, through.body_sha256) == (direct.body_bytes, direct.body_sha256)


def passed_on(seen: Seen) -> list[tuple[bytes, bytes]]:
    return [
        (name, value)
        for name, value in seen.headers
        if name.lower() not in NOT_SENT_ON and name.lower() != b"x-case-id"
    ]


def assert_error(reply: Reply, status: int, code: str | None = None) -> dict[str, Any]:
    """An error of OpenAI's shape, whole, as JSON, with its trace id. Returns the `error` object."""
    assert reply.status == status, (reply.status, reply.body)
    assert (reply.value("content-type") or "").startswith("application/json")
    assert reply.ending == "complete"
    error = json.loads(reply.body)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["message"] and isinstance(error["type"], str)
    if code is not None:
        assert error["code"] == code
    assert reply.trace_id
    return dict(error)


def error_events(body: bytes) -> list[dict[str, Any]]:
    """The `error` objects that a stream carries, in both shapes (chat and responses)."""
    found = []
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            document = json.loads(line[6:])
            if document.get("error"):
                found.append(document["error"])
            elif document.get("type") == "error":
                found.append(document)
    return found


def eventually(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
    """Return the condition's first true value. Raises: AssertionError when it stays false."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)
    return value
