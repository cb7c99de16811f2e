"""The list of models: the default provider's own, plus the virtual model names and the models that the configuration
names, minus the models that the caller's project may not use.

Failure mode: an answer that is not a list of models (an error, another media type, compressed, too large) passes
unchanged.

Source: OpenAI API reference, "List models".
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from proxy.event_loop.off_loop import LARGE_BODY_BYTES, decoded_off_loop
from proxy.exchange import Headers, Sink, UpstreamReply, first_values
from proxy.openai import json_steps
from proxy.openai.decoding import coding_of
from proxy.openai.documents import dump_exact

_MOST_BYTES: Final = 4_194_304
_OF_THE_BODY: Final = frozenset({b"content-length", b"etag", b"content-md5", b"digest"})

Named = Sequence[tuple[str, str]]
"""Name and owner of each model to add."""


def can_be_extended(reply: UpstreamReply) -> bool:
    """Tell whether an answer is an uncompressed JSON document."""
    fields = reply.fields
    is_plain = not coding_of(reply)
    return reply.status == 200 and is_plain and b"json" in fields.get(b"content-type", b"").lower()


def extended(body: bytes, named: Named, allows: Callable[[str], bool]) -> bytes:
    """Return the list in `body` with the missing `named` models added and disallowed ones removed."""
    document = json_steps.read_container(body)
    if type(document) is not dict or type(document.get("data")) is not list:
        return body
    listed = [entry for entry in document["data"] if allows(_id(entry))]
    known = {_id(entry) for entry in listed}
    ours = [
        {"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in named if name not in known
    ]
    made = dump_exact({**document, "data": [*ours, *listed]})
    listed.clear()
    json_steps.let_go(document, body)
    return made


class ListedReply:
    """Implements `exchange.UpstreamReply` around the provider's list."""

    def __init__(self, reply: UpstreamReply, named: Named, allows: Callable[[str], bool]) -> None:
        self._reply = reply
        self._named = named
        self._allows = allows
        self._is_whole = False
        self.status = reply.status
        self.reason = reply.reason
        self.headers: Headers = [field for field in reply.headers if field[0].lower() not in _OF_THE_BODY]
        self.fields = first_values(self.headers)

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return the whole list at once, then the rest of one that is too large."""
        if self._is_whole:
            return await self._reply.read()
        self._is_whole = True
        read = bytearray()
        while piece := await self._reply.read():
            read += piece
            if len(read) > _MOST_BYTES:
                return bytes(read)
        body = bytes(read)
        if len(body) <= LARGE_BODY_BYTES:
            return extended(body, self._named, self._allows)
        return await decoded_off_loop(partial(extended, body, self._named, self._allows))

    @property
    def complete(self) -> bool:
        """True if the list was returned."""
        return self._is_whole and self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()


def _id(entry: Any) -> str:
    name = entry.get("id") if type(entry) is dict else None
    return name if type(name) is str else ""
