"""A kept answer in the place of a provider's: relays cannot tell the difference.

Events leave as they came. A stream can also be made of a whole chat completion or completion (`openai.chunks`); a whole
answer is never put together from a stream.
"""

from typing import Final

from proxy.cache.memory import Kept
from proxy.exchange import Headers
from proxy.openai.chunks import as_events
from proxy.openai.documents import load_object

_EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


class KeptReply:
    """Implements `exchange.UpstreamReply`."""

    def __init__(self, content_type: bytes, body: bytes) -> None:
        self.status = 200
        self.reason = "OK"
        self.headers: Headers = ((b"content-type", content_type),)
        self._rest = body

    async def read(self) -> bytes:
        """Return the whole body, then its end."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def complete(self) -> bool:
        """True: all of it is here."""
        return True

    def close(self) -> None:
        """Nothing is held."""


def replay(kept: Kept, *, stream: bool) -> KeptReply | None:
    """Return the answer in the form that is asked for; `None` if it cannot have that form exactly."""
    if stream is (kept.form == "events"):
        return KeptReply(kept.content_type, kept.body)
    document = load_object(kept.body) if stream else None
    events = None if document is None else as_events(document)
    return None if events is None else KeptReply(_EVENT_STREAM, events)
