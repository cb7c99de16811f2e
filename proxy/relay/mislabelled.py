"""Event streams that a provider labels as something else. Official clients read them all the same, and so do we.

Only asked where a stream was requested and another type came, uncompressed: an error, a whole answer after all, lines
of JSON, or such a stream. The first bytes tell: a stream begins with a field or a comment, which no JSON document does.
The label stays as it is.

Source: WHATWG HTML section 9.2.6; openai-python 2.x, `_response.py` (a stream is parsed whatever its Content-Type is).
"""

from typing import Final

from proxy.exchange import Sink, UpstreamReply
from proxy.relay.answer import EVENT_STREAM, Answer

_FIELDS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
_STARTS: Final = (*_FIELDS, *(b"\xef\xbb\xbf" + field for field in _FIELDS))
"""The first bytes of a stream, also after a byte order mark."""


def may_be_mislabelled(answer: Answer) -> bool:
    """Tell whether the body has to be looked at to know what it is."""
    was_requested = answer.strip_usage or answer.asked_for_usage
    is_labelled = answer.content_type == EVENT_STREAM or answer.status != 200
    return was_requested and not is_labelled and not answer.content_encoding


async def look(answer: Answer) -> None:
    """Wait for the first bytes and correct what `answer` is. Raises UpstreamFailed if the body was cut before them."""
    reply, first = answer.reply, b""
    while True:
        piece = await reply.read()
        first += piece
        is_events = first.startswith(_STARTS)
        if is_events or not piece or not any(start.startswith(first) for start in _STARTS):
            break
    answer.reply = _Reread(reply, first)
    answer.is_events = is_events
    answer.is_json = answer.is_json and not is_events


class _Reread:
    """Implements `exchange.UpstreamReply`: the bytes already read, then the reply's own."""

    def __init__(self, reply: UpstreamReply, first: bytes) -> None:
        self._reply = reply
        self._first = first
        self.status, self.reason, self.headers = reply.status, reply.reason, reply.headers

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what was read ahead, with the rest if that is here; then what arrives."""
        first, self._first = self._first, b""
        if first:
            return first + await self._reply.read() if self._reply.complete else first
        return await self._reply.read(sink)

    @property
    def complete(self) -> bool:
        """True if the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()
