"""Observes a multipart form as it passes: small text fields and the sizes of files.

The bytes themselves are relayed elsewhere, at once and unchanged; only a possible part of a boundary, the head of a
part and the values of small fields are held here. Memory is constant for any input.

    preamble -> head -> part -> head -> part -> .. -> epilogue
                 `--> broken (malformed: the rest is ignored)

Failure mode: a malformed form is only marked as such; the provider answers. `feed` never raises.

Source: RFC 7578 (multipart/form-data), RFC 2046 section 5.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_PARTS = 64
"""The most fields, and files, that are recorded; further ones are ignored."""
MAX_VALUE_BYTES = 4096
_MAX_HEAD_BYTES = 16_384
_MAX_BOUNDARY = 200
_MAX_PADDING = 64
_MAX_NAME = 256

_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data\b(.*)$", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(rb';\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILENAME = re.compile(rb';\s*filename\*?=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a form; its name is not kept, only the length."""

    name: str
    filename_length: int
    size: int


@dataclass(frozen=True, slots=True)
class FormFacts:
    """The content of a form."""

    fields: Mapping[str, str]
    """Text fields up to `MAX_VALUE_BYTES`; the last of equal names."""
    sizes: Mapping[str, int]
    """Bytes per text field, of any size; equal names are added up."""
    files: tuple[FilePart, ...]
    malformed: bool
    """Not a form, or cut off: the facts may be incomplete."""


NOTHING_SEEN: Final = FormFacts({}, {}, (), malformed=True)
"""Of a form of which nothing was read."""


class Span(NamedTuple):
    """Bytes of the form that can hold text: contents and heads of parts, and what is outside of parts."""

    start: int
    """Offset in the whole form."""
    stop: int
    part: str | None
    """The name of the part; `None` outside of contents."""
    is_last: bool
    """The text ends here."""


@dataclass(slots=True)
class _Part:
    name: str
    filename_length: int | None
    size: int = 0
    value: bytearray = field(default_factory=bytearray)


class MultipartObserver:
    """Reads one form. `content_type`: the unchanged header value."""

    def __init__(self, content_type: bytes) -> None:
        found = _BOUNDARY.search(content_type)
        boundary = (found[1] or found[2]) if found else b""
        self._broken = not boundary or len(boundary) > _MAX_BOUNDARY
        self._ended = False
        self._in_head = False
        self._delimiter = b"\r\n--" + boundary
        self._pending = b"\r\n"  # the first boundary is not preceded by a line end, so one is added
        self._part: _Part | None = None
        self._fields: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._files: list[FilePart] = []
        self._spans: list[Span] | None = None
        self._read = 0
        """Number of bytes fed."""
        self._base = 0
        """Offset of the current input in the form."""

    def follow(self) -> None:
        """Start to record where texts can be: call `spans` after each `feed`."""
        self._spans = []

    def spans(self) -> tuple[list[Span], int]:
        """Return the spans found since the last call, and the offset up to which they are known.

        For a malformed form, that is the end of the input, and no span covers the rest.
        """
        found, self._spans = self._spans or [], []
        return found, self._read if self.is_over else self._read - len(self._pending)

    @property
    def is_broken(self) -> bool:
        """The form is malformed: the rest is ignored."""
        return self._broken

    @property
    def is_over(self) -> bool:
        """Nothing more will be read: the form has ended, or is malformed."""
        return self._broken or self._ended

    def feed(self, chunk: bytes) -> None:
        """Observe the next bytes of the body. Cost O(chunk)."""
        self._read += len(chunk)
        if self._ended:
            self._note(self._read - len(chunk), self._read)
        if self._broken or self._ended:
            return
        data = self._pending + chunk
        self._base = self._read - len(data)
        position: int | None = 0
        while position is not None:
            position = self._read_head(data, position) if self._in_head else self._read_content(data, position)

    def facts(self) -> FormFacts:
        """Return what was seen so far."""
        return FormFacts(dict(self._fields), dict(self._sizes), tuple(self._files), self._broken or not self._ended)

    def _read_content(self, data: bytes, start: int) -> int | None:
        """Read a part up to its boundary; return the start of the next head, `None` if it is not known yet."""
        found = data.find(self._delimiter, start)
        if found < 0:
            self._wait(data, start, max(start, len(data) - len(self._delimiter) + 1))
            return None
        after = found + len(self._delimiter)
        rest = data[after : after + _MAX_PADDING]
        line_end = rest.lstrip(b" \t")
        if rest.startswith(b"--"):
            self._finish_part(data, start, found)
            self._ended = True
            self._note(self._base + after + 2, self._base + len(data))
            return None
        if line_end.startswith(b"\r\n"):
            self._finish_part(data, start, found)
            self._in_head = True
            return after + len(rest) - len(line_end)
        if len(rest) < _MAX_PADDING and (b"--".startswith(rest) or b"\r\n".startswith(line_end)):
            self._wait(data, start, found)
            return None
        self._take(data, start, found + 1)
        return found + 1

    def _read_head(self, data: bytes, start: int) -> int | None:
        """Read the header lines of a part; `data[start:]` begins with the end of the boundary's own line."""
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            self._broken = len(data) - start > _MAX_HEAD_BYTES
            self._pending = data[start:]
            return None
        self._part = _described(data[start:end])
        self._note(self._base + start + 2, self._base + end, is_last=True)
        self._in_head = False
        return end + 4

    def _wait(self, data: bytes, start: int, keep: int) -> None:
        self._take(data, start, keep)
        self._pending = data[keep:]

    def _take(self, data: bytes, start: int, stop: int) -> None:
        part = self._part
        if part is None:
            self._note(self._base + start, self._base + stop)
            return
        part.size += stop - start
        if self._spans is not None and stop > start:
            self._spans.append(Span(self._base + start, self._base + stop, part.name, is_last=False))
        if part.filename_length is None and len(part.value) < MAX_VALUE_BYTES:
            part.value += data[start : min(stop, start + MAX_VALUE_BYTES - len(part.value))]

    def _finish_part(self, data: bytes, start: int, stop: int) -> None:
        self._take(data, start, stop)
        part, self._part = self._part, None
        if part is None:
            self._note(self._base + stop, self._base + stop, is_last=True)
            return
        if self._spans is not None:
            self._spans.append(Span(self._base + stop, self._base + stop, part.name, is_last=True))
        if part.filename_length is not None:
            if len(self._files) < MAX_PARTS:
                self._files.append(FilePart(part.name, part.filename_length, part.size))
        elif part.name in self._sizes or len(self._sizes) < MAX_PARTS:
            self._sizes[part.name] = self._sizes.get(part.name, 0) + part.size
            if part.size <= MAX_VALUE_BYTES:
                self._fields[part.name] = part.value.decode("utf-8", "replace")

    def _note(self, start: int, stop: int, *, is_last: bool = False) -> None:
        """Record text outside of contents. The line end before the first boundary is not in the form."""
        if self._spans is not None and (is_last or stop > max(start, 0)):
            self._spans.append(Span(max(start, 0), max(stop, 0), None, is_last))


def _described(head: bytes) -> _Part:
    line = _DISPOSITION.search(head)
    described = line[1] if line else b""
    name, filename = _NAME.search(described), _FILENAME.search(described)
    return _Part(
        name=(name[1] or name[2] or b"").decode("utf-8", "replace")[:_MAX_NAME] if name else "",
        filename_length=len(filename[1] or filename[2] or b"") if filename else None,
    )
