"""Parses the head of a plain request and leaves all others to aiohttp's parser. Bytes in, facts out, no I/O.

Plain is what official clients send: HTTP/1.1, a common method, a path, one Host, a body with its length or none.
Chunked bodies, upgrades, `Expect`, HTTP/1.0, and anything malformed, ambiguous or beyond a limit are not refused here:
`read_head` returns `None`, nothing is consumed, and the other parser judges the same bytes. So this file cannot be more
lenient than that parser as long as everything it accepts is strictly valid.

A client sends the same head with every request of a connection, apart from the length of the body. `Head.follows`
recognises a known head, so that its lines are parsed and validated only once.

Every pattern is possessive: it takes linear time in the size of the head, for any input.

Source: RFC 9112 sections 3 to 6; RFC 9110 sections 5.5, 5.6.2 and 8.6.
"""

import re
from typing import Final

from proxy.exchange import Header, Headers, Inbound

_HEAD: Final = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,=:@/%?;-]*+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)++)\r\n"
)
_FIELD: Final = re.compile(rb"([^:\r\n]++):([^\r\n]*+)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*+")
_ELSEWHERE: Final = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"trailer", b"te", b"http2-settings"})
"""Fields that change how a request is framed or answered."""
_CONNECTION: Final = {b"keep-alive": True, b"close": False}
_END: Final = b"\r\n\r\n"


class Head:
    """A plain head. `headers`: its lines in order, names in the client's case, without Content-Length."""

    __slots__ = ("_after", "_before", "headers", "keep_alive", "made", "method", "target")

    def __init__(
        self, method: str, target: str, headers: Headers, *, keep_alive: bool, wire: tuple[bytes, bytes]
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.keep_alive = keep_alive
        self.made: tuple[object, Inbound] | None = None
        """The version of the configuration and what the handler derived from this head in it."""
        self._before, self._after = wire

    def follows(self, data: bytes) -> tuple[int | None, int] | None:
        """Return body length and head size if `data` begins with this head again, with any Content-Length."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        if not after:
            return None, start
        end = data.find(b"\r", start, start + 16)
        if end < 0 or not data.startswith(after, end) or not _LENGTH.fullmatch(data, start, end):
            return None
        return int(data[start:end]), end + len(after)


def read_head(data: bytes, *, line_bytes: int, lines: int) -> tuple[Head, int | None, int] | None:
    """Return the head at the beginning of `data`, the length of its body and its own size; `None`: not plain.

    `line_bytes`: a longer head is not plain, so no line of it can be too long. `lines`: the most lines of a plain head.
    """
    found = _HEAD.match(data, 0, line_bytes)
    if found is None:
        return None
    method, target, block = found.groups()
    fields = [(name, value.strip(b" \t")) for name, value in _FIELD.findall(block)]
    framing = _framing(fields) if len(fields) < lines else None
    if framing is None:
        return None
    keep_alive, at = framing
    if at is None:
        return _head(method, target, fields, keep_alive, (found[0], b"")), None, found.end()
    length = fields.pop(at)[1]
    start = _place_of(found, at, length)
    wire = (data[:start], data[start + len(length) : found.end()])
    return _head(method, target, fields, keep_alive, wire), int(length), found.end()


def is_host(value: bytes) -> bool:
    """Tell whether a value of Host could name a host, with or without a port; an empty one may be (RFC 9112, 3.2)."""
    return _HOST.fullmatch(value) is not None


def is_begun(data: bytes) -> bool:
    """Tell whether `data` is an incomplete head that may still become a plain one; otherwise there is no need to wait.

    Takes less than a microsecond, as it may run for every byte of a slow head.
    """
    return _END not in data and data[:1].isupper() and data.count(b"\n") == data.count(b"\r\n")


def _head(method: bytes, target: bytes, fields: list[Header], keep_alive: bool, wire: tuple[bytes, bytes]) -> Head:
    return Head(method.decode(), target.decode(), tuple(fields), keep_alive=keep_alive, wire=wire)


def _framing(fields: list[Header]) -> tuple[bool, int | None] | None:
    """Return whether the connection is kept open, and the index of the length field; `None`: not plain."""
    keep_alive, at, hosts = True, None, 0
    for index, (name, value) in enumerate(fields):
        lowered = name.lower()
        if lowered in _ELSEWHERE:
            return None
        if lowered == b"content-length":
            if at is not None or not _LENGTH.fullmatch(value):
                return None
            at = index
        elif lowered == b"connection":
            wanted = _CONNECTION.get(value.lower())
            if wanted is None:
                return None
            keep_alive = keep_alive and wanted
        elif lowered == b"host":
            if not is_host(value):
                return None
            hosts += 1
    return (keep_alive, at) if hosts == 1 else None


def _place_of(found: re.Match[bytes], index: int, length: bytes) -> int:
    """Return the position of the digits of field number `index`."""
    lines = found[3].split(b"\r\n")
    start = found.start(3) + sum(len(line) + 2 for line in lines[:index])
    return start + lines[index].index(length, lines[index].index(b":"))
