"""Removes a Content-Encoding to read or edit an answer, in bounded pieces.

A few kilobytes of gzip can expand to gigabytes: nothing is inflated before it is requested, and no piece exceeds the
given limit. `deflate` is zlib's format (RFC 9110) or, as some servers send it, the raw one (RFC 1951).

Failure mode: UpstreamFailed, code upstream_bad_encoding. Source: RFC 9110 section 8.4.1, RFC 1952 section 2.2; curl,
lib/content_encoding.c (`none`).
"""

import zlib
from collections.abc import Iterator
from typing import Final

from proxy.errors import UpstreamFailed
from proxy.exchange import UpstreamReply

_GZIP_NAMES = (b"gzip", b"x-gzip")
_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_BARE = -zlib.MAX_WBITS
_PLAIN: Final = frozenset({b"", b"identity", b"none", b"utf-8", b"utf8"})
"""Servers send `none` so that nothing on the way compresses a stream, a charset by mistake; clients undo neither."""


def coding_of(reply: UpstreamReply) -> bytes:
    """Return the coding of a body, in lower case; empty if it is not encoded. Of several, the list: never supported."""
    if b"content-encoding" not in reply.fields:
        return b""
    # A list may be spread over lines (RFC 9110 section 5.3): the first of them alone may say that there is none.
    named = b",".join([value for name, value in reply.headers if name.lower() == b"content-encoding"]).lower()
    return b",".join([coding for one in named.split(b",") if (coding := one.strip()) not in _PLAIN])


def supported(encoding: bytes) -> bool:
    """Tell whether a Content-Encoding (lower case) can be removed here."""
    return encoding in _GZIP_NAMES or encoding == b"deflate"


class Decoder:
    """Decodes one body. `encoding`: a supported one. `limit`: largest piece."""

    def __init__(self, encoding: bytes, limit: int) -> None:
        self._limit = limit
        self._gzip = encoding in _GZIP_NAMES
        self._inflater = zlib.decompressobj(_GZIP if self._gzip else _ZLIB)
        self._certain = self._gzip
        """False until two bytes have revealed which of its two formats `deflate` is."""
        self._start = b""

    @property
    def complete(self) -> bool:
        """True at the end of a compressed body; one that ends earlier was truncated."""
        return self._inflater.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded `data`, in pieces. Exhaust it before the next call, or drop the decoder.

        Raises:
            UpstreamFailed: the body is not in that encoding.
        """
        if not self._certain:
            data = self._start + data
            if len(data) < 2:
                self._start = data
                return
            self._certain = True
            if not _is_zlib(data):
                self._inflater = zlib.decompressobj(_BARE)
        try:
            yield from self._inflate(data)
        except zlib.error:
            raise UpstreamFailed(
                "The provider sent a body that is not in the encoding it names.", code="upstream_bad_encoding"
            ) from None

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            if self._inflater.eof:
                if not self._gzip or not data.startswith(b"\x1f"):
                    return
                self._inflater = zlib.decompressobj(_GZIP)
            piece = self._inflater.decompress(data, self._limit)
            if piece:
                yield piece
            full = len(piece) == self._limit
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail


def _is_zlib(start: bytes) -> bool:
    return start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
