"""What a request says, as the policy scans it, and the same once more with other texts in it.

    JSON                     its value: of a known operation as it was parsed, else read here, in any encoding of JSON
    anything else            one text, in UTF-8 or else in Latin-1, which has a character for every byte
    a websocket message      its value, or one text

What was scanned is what is sent: JSON with a duplicate key, which can be read in two ways, is written anew from what
was read. Numbers of any size, and members that were added, keep their exact form.

Rule of the file: pure. Failure mode: what is called JSON and is none is a text, and `is_malformed`.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.exchange import ParsedRequest
from proxy.openai import json_steps, lenient
from proxy.openai.json_body import edited, parse_body, unambiguous
from proxy.openai.pieces import cut, decoded, encoded, joined
from proxy.policy import places
from proxy.policy.places import Place

_UTF_8 = "utf-8"
_new: Final = tuple.__new__
"""Creates a named tuple in half the time of its constructor (callgrind)."""


class ReadBody(NamedTuple):
    """A body as it is scanned."""

    document: Any
    """The value of JSON, the text of anything else."""
    data: bytes
    """The bytes that say so; in UTF-8 if it is JSON."""
    encoding: str = _UTF_8
    """How the client encoded its JSON."""
    is_malformed: bool = False
    """It is called JSON and is none."""
    received: bytes | None = None
    """The client's own bytes, if they are not `data` and say the same: encoders choose an order of bytes."""

    def sent(self, changes: Mapping[Place, str]) -> bytes:
        """Return the body for the provider with other texts at some places: in UTF-8, the same object without any."""
        if self.received is not None and not changes:
            return self.received
        data = self.written(changes)
        return data if self.encoding == _UTF_8 else data.decode().encode(self.encoding)

    def written(self, changes: Mapping[Place, str]) -> bytes:
        """Return the same in the encoding of `data`."""
        if not changes:
            return self.data
        if type(self.document) is not str:
            return edited(self.data, lambda exact: places.changed(exact, changes))
        text = changes.get((), self.document)
        return encoded(text) if _is_utf8(self.data) else text.encode("latin-1")


class ReadMessage(NamedTuple):
    """A client's websocket message as it is scanned."""

    text: str
    document: Any
    """The value of JSON, else the text itself."""

    def sent(self, changes: Mapping[Place, str]) -> str:
        """Return the message with other texts at some places; the same object if it can stay."""
        if type(self.document) is str and self.document == self.text:
            return changes.get((), self.text)
        if changes:
            return decoded(edited(encoded(self.text), lambda exact: places.changed(exact, changes)))
        data = encoded(self.text, "surrogatepass")
        sure = unambiguous(data, self.document)
        return self.text if sure is data else decoded(sure)

    def let_go(self) -> None:
        """Free the document, in steps if it is large."""
        if self.document is not self.text:
            json_steps.let_go(self.document, encoded(self.text))


def read_body(request: ParsedRequest, content_type: bytes, limits: Limits) -> ReadBody:
    """Read the body of a request. `content_type`: the unchanged header value, empty without one."""
    body = request.body or b""
    if request.document is not None:
        return _new(ReadBody, (request.document, body, _UTF_8, False, None))
    is_malformed = False
    if content_type.partition(b";")[0].strip().lower().endswith(b"json"):
        in_utf8, encoding = lenient.in_utf8(body)
        try:
            document = parse_body(in_utf8, limits)
        except InvalidRequest:
            is_malformed = True
        else:
            if type(document) in (dict, list):
                sure = unambiguous(in_utf8, document)
                return ReadBody(document, sure, encoding, received=body if sure is in_utf8 else None)
    try:
        text = decoded(body)
    except UnicodeDecodeError:
        text = joined(piece.decode("latin-1") for piece in cut(body, 0, len(body)))
    return ReadBody(text, body, is_malformed=is_malformed)


def read_message(text: str) -> ReadMessage:
    """Read a client's websocket message."""
    with suppress(ValueError):
        return ReadMessage(text, json_steps.read(encoded(text), json_steps.ANY_DEPTH))
    return ReadMessage(text, text)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
