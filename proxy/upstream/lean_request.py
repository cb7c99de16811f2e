"""Serialises the head of a request and frames its body. Pure, no I/O.

Rule of the file: fields are written in the given order, case and bytes, Host first, framing last. Only this file
decides on framing: Content-Length for bytes and streams of known length, chunked for other streams, and no framing
field for a request without a body whose method does not expect one.

Failure mode: a line end or NUL inside a field could start a second request on the wire; it raises ValueError.

Source: RFC 9112 sections 3, 5 and 6.
"""

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final

from proxy.exchange import Header, UpstreamRequest

_REMEMBERED: Final = 64
_EXPECTS_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def request_head(request: UpstreamRequest, target: str, authority: str) -> bytes:
    """Return the head with its final blank line.

    Raises:
        ValueError: a field or the method contains a line end or NUL.
    """
    return b"%b%b\r\n" % (_lines(request.method, target, authority, tuple(request.headers)), _framing(request))


@lru_cache(_REMEMBERED)
def _lines(method: str, target: str, authority: str, headers: tuple[Header, ...]) -> bytes:
    """Return the lines of a head without framing. Cached: they are the same for every request of a caller."""
    lines = [f"{method} {target} HTTP/1.1\r\nHost: {authority}".encode("ascii")]
    lines.extend([name + b": " + value for name, value in headers])
    text = b"\r\n".join(lines) + b"\r\n"
    # One line end per line, and the first entry has two lines: any more came from a field.
    ends = len(lines) + 1
    if text.count(b"\n") != ends or text.count(b"\r") != ends or b"\0" in text:
        raise ValueError("a request line or header field holds a line end or NUL")
    return text


def _framing(request: UpstreamRequest) -> bytes:
    if isinstance(request.body, bytes) or request.body is None:
        size = len(request.body or b"")
        return b"Content-Length: %d\r\n" % size if size or request.method in _EXPECTS_BODY else b""
    if request.content_length is None:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % request.content_length


async def slices(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield `data` in pieces of `size`, so that a large body is subject to back-pressure like a streamed one."""
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield bytes(view[start : start + size])
