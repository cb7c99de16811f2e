"""Parses successive HTTP/1.1 responses from the bytes of one connection. Bytes in, facts out, no I/O.

Theory of operation: llhttp (through `httptools`) implements the grammar. It rejects ambiguous responses: duplicate or
malformed Content-Length, Content-Length with Transfer-Encoding, bad chunk sizes, bare CR or LF, NUL and control
characters in values, folded lines, unknown versions. This file additionally rejects: a Transfer-Encoding other than
exactly `chunked` (also in HTTP/1.0), 101, statuses below 100, control characters in the reason, unlimited interim
responses, and heads, trailers or chunk extensions without limit (llhttp buffers an unfinished line without bound).

Failure mode: `fault` is set for good; the body before it was returned, so every split of the bytes gives the same
result. After `complete`, further bytes only make the connection unfit for reuse.

    begin -> head (1xx skipped) -> body pieces -> complete | fault

Source: RFC 9112 sections 4, 6 and 7; RFC 9110 section 15.
"""

from collections.abc import Mapping
from typing import Final

import httptools

from proxy.exchange import Header, first_values

_MAX_INTERIM: Final = 1024
"""Some servers send `102 Processing` every few seconds of a long call; the timeouts bound it."""
_HEAD_LINES: Final = 8
"""A whole head may be as long as this many lines of maximum length."""
_CONTROLS: Final = bytes(code for code in range(32) if code != 9) + b"\x7f"
_BODILESS_STATUSES: Final = frozenset({204, 304})
_RELEASED: Final = httptools.HttpResponseParser(object())


class _Refused(Exception):
    """Leaves a parser callback; `fault` has the reason."""


class AnswerParser:
    """State of the current response. `line_bytes`, `lines`: longest header line and most lines of a head."""

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_fed",
        "_head_bytes",
        "_headers",
        "_interim",
        "_line_bytes",
        "_lines",
        "_overhead",
        "_parser",
        "_pieces",
        "_reason",
        "_skipping",
        "_trailers",
        "complete",
        "fault",
        "fields",
        "headers",
        "on_body",
        "reason",
        "reusable",
        "status",
        "until_eof",
    )

    def __init__(self, *, line_bytes: int, lines: int) -> None:
        self._line_bytes = line_bytes
        self._head_bytes = line_bytes * _HEAD_LINES
        self._lines = lines
        self._pieces: list[bytes] = []
        # The list's own method saves a Python frame per piece of body.
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = False
        self.begin(bodiless=False)

    def begin(self, *, bodiless: bool) -> None:
        """Expect the next response. `bodiless`: it answers a HEAD request."""
        if self._bodiless:
            # llhttp is still waiting for the body that the last head announced.
            self._parser = httptools.HttpResponseParser(self)
        self._bodiless = bodiless
        self._headers: list[Header] = []
        self._reason = b""
        self._interim = 0
        self._skipping = False
        self._chunked = False
        self._trailers = 0
        self._overhead = self._fed = 0
        self.status = 0
        """Of the final response; 0 until its head is complete."""
        self.reason = ""
        self.headers: list[Header] = []
        self.fields: Mapping[bytes, bytes] = {}
        """The first value of each of them, by lower-case name."""
        self.complete = False
        self.until_eof = False
        """The body ends with the connection."""
        self.reusable = False
        self.fault: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Parse what arrived and return the body bytes in it."""
        if self.complete or self.fault is not None:
            self.reusable = False
            return b""
        if not self.status:
            if not self._fed and data[0] != 0x48:  # llhttp would accept RTSP and leading line ends as well
                self.fault = "not an HTTP answer"
                return b""
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stop(error)
        pieces = self._pieces
        if pieces:
            if len(pieces) == 1:
                body = pieces.pop()
            else:
                body = b"".join(pieces)
                pieces.clear()
            self._overhead = 0
            if not self._bodiless:
                return body
            self.reusable = False
        else:
            self._overhead += len(data)
            if self._overhead > self._head_bytes * 2 and not self.complete:
                self.fault = self.fault or "head, trailer or chunk extension without end"
        return b""

    def let_go(self) -> None:
        """Release llhttp's parser, which knows this one: both would wait for the garbage collector. For good."""
        self._parser = _RELEASED

    def on_message_begin(self) -> None:
        """Reject a second response after the first."""
        if self.complete:
            raise _Refused

    def on_status(self, part: bytes) -> None:
        """Collect the reason phrase."""
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; count a field of the trailer, which is dropped."""
        if self.status:
            self._trailers += 1
            self._check_lines()
        else:  # counted when all have come; until then `feed` limits their bytes
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Validate the head; skip an interim one."""
        status: int = self._parser.get_status_code()
        self._check_lines()
        self._check_head(status)
        if status < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                self._refuse("too many interim answers")
            self._skipping = True
            self._headers = []
            self._reason = b""
            return
        self.fields = first_values(self._headers)
        self._check_framing()
        self.reusable = self._parser.should_keep_alive()
        self.reason = self._reason.decode("latin-1")  # sent on as the same bytes
        self.headers = self._headers
        self.status = status
        self._overhead = 0
        if self._bodiless:
            # A chunked marker after this head could escape the check for surplus bytes.
            self.reusable = self.reusable and not self._chunked
            self.complete = True

    def on_message_complete(self) -> None:
        """Record the end, unless it was an interim response's."""
        self.complete = not self._skipping
        self._skipping = False

    def _stop(self, error: Exception) -> None:
        if self.complete:
            self.reusable = False
        elif self.fault is None:
            # llhttp's reasons are constant texts; none quotes the input.
            self.fault = str(error)

    def _refuse(self, rule: str) -> None:
        self.fault = rule
        raise _Refused

    def _check_lines(self) -> None:
        if len(self._headers) + self._trailers > self._lines:
            self._refuse("too many header lines")

    def _check_head(self, status: int) -> None:
        if status < 100:
            self._refuse("status below 100")
        if status == 101:
            self._refuse("switches protocols unasked")
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("unsupported HTTP version")
        if self._fed > self._line_bytes:  # else no line can be too long
            self._check_sizes()
        if self._reason.translate(None, _CONTROLS) != self._reason:
            self._refuse("control character in the reason phrase")

    def _check_sizes(self) -> None:
        sizes = [len(name) + len(value) for name, value in self._headers]
        if max(len(self._reason), *sizes, 0) > self._line_bytes:
            self._refuse("header line too long")
        if sum(sizes) > self._head_bytes:
            self._refuse("head too long")

    def _check_framing(self) -> None:
        if b"transfer-encoding" in self.fields:
            codings = [value.lower() for name, value in self._headers if name.lower() == b"transfer-encoding"]
            if codings != [b"chunked"] or self._parser.get_http_version() == "1.0":
                self._refuse("unknown Transfer-Encoding")
            self._chunked = True
            return
        sized = b"content-length" in self.fields
        self.until_eof = not sized and self._parser.get_status_code() not in _BODILESS_STATUSES
