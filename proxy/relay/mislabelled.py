"""Event streams that a provider labels as JSON. Official clients read them all the same, so they pass as streams.

Only asked where a stream was requested and an uncompressed `application/json` came: an error, a whole answer after all,
or such a stream. The first bytes tell, as no JSON document begins like a field of an event. The label stays as it is.

Source: WHATWG HTML section 9.2.6; openai-python 2.x, `_response.py` (a stream is parsed whatever its Content-Type is).
"""

import re
from typing import Final

from proxy.exchange import UpstreamReply
from proxy.relay.answer import Answer

_FIELD: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*+(?:data|event|id|retry)?:")


def may_be_mislabelled(answer: Answer) -> bool:
    """Tell whether the body has to be looked at to know what it is."""
    was_requested = answer.strip_usage or answer.asked_for_usage
    return was_requested and answer.is_json and answer.status == 200 and not answer.content_encoding


async def look(answer: Answer) -> None:
    """Wait for the first bytes and correct what `answer` is. Raises UpstreamFailed if the body was cut before them."""
    first = await answer.reply.read()
    answer.reply = _Reread(answer.reply, first)
    if _FIELD.match(first):
        answer.is_json, answer.is_events = False, True


class _Reread:
    """Implements `exchange.UpstreamReply`: the bytes already read, then the reply's own."""

    def __init__(self, reply: UpstreamReply, first: bytes) -> None:
        self._reply = reply
        self._first = first
        self.status, self.reason, self.headers = reply.status, reply.reason, reply.headers

    async def read(self) -> bytes:
        """Return what was read ahead, with the rest if that is here; then what arrives."""
        first, self._first = self._first, b""
        if first:
            return first + await self._reply.read() if self._reply.complete else first
        return await self._reply.read()

    @property
    def complete(self) -> bool:
        """True if the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()
