"""Answers whose label (Content-Type) is wrong or says nothing: their first bytes decide. The label is kept.

- Event streams that a provider labels as something else. Official clients read them all the same, and so do we. This is
  checked only if a stream was requested and another type arrived: an error, a whole answer after all, lines of JSON, or
  such a stream. A stream begins with a field or a comment, which no JSON document does.
- Texts that are labelled as binary, above all as `application/octet-stream`: files, and with them the results of
  batches. This is checked only if texts are scanned.

Neither is checked if a Content-Encoding hides the bytes.

Source: WHATWG HTML section 9.2.6; openai-python 2.x, `_response.py` (a stream is parsed whatever its Content-Type is);
ruby-openai #474 (the type of results of batches).
"""

from typing import Final

from proxy.exchange import Sink, UpstreamReply
from proxy.openai.binary import begins_as_text, is_undecided
from proxy.relay.answer import EVENT_STREAM, Answer
from proxy.relay.readable import may_be_text

_FIELDS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
_STARTS: Final = (*_FIELDS, *(b"\xef\xbb\xbf" + field for field in _FIELDS))
"""The first bytes of a stream, also after a byte order mark."""


def may_be_mislabelled(answer: Answer) -> bool:
    """Tell whether the body has to be looked at to know what it is."""
    if answer.content_encoding:
        return False
    return _may_be_events(answer) or (answer.scanner is not None and may_be_text(answer))


def _may_be_events(answer: Answer) -> bool:
    was_requested = answer.strip_usage or answer.asked_for_usage
    return was_requested and answer.content_type != EVENT_STREAM and answer.status == 200


async def look(answer: Answer) -> None:
    """Wait for the first bytes and correct what `answer` is. Raises UpstreamFailed if the body was cut before them."""
    reply, first = answer.reply, b""
    starts = _STARTS if _may_be_events(answer) else ()
    is_open = may_be_text(answer)
    while True:
        piece = await reply.read()
        first += piece
        is_events = first.startswith(starts)
        may_go_on = any(start.startswith(first) for start in starts) or (is_open and is_undecided(first))
        if is_events or not piece or not may_go_on:
            break
    answer.reply = _Reread(reply, first)
    answer.is_events = is_events
    answer.is_json = answer.is_json and not is_events
    answer.begins_as_text = is_open and begins_as_text(first)


class _Reread:
    """Implements `exchange.UpstreamReply`: the bytes already read, then the reply's own."""

    def __init__(self, reply: UpstreamReply, first: bytes) -> None:
        self._reply = reply
        self._first = first
        self.status, self.reason = reply.status, reply.reason
        self.headers, self.fields = reply.headers, reply.fields

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
