"""A kept answer in the place of a provider's, in the shape that a request asks for.

Events leave as they came, but for the usage where the client did not ask for it. A stream can also be made of a whole
chat completion or completion (`openai.chunks`); a whole answer is never put together from a stream.

An answer is read when it is first asked for in a shape, as a relay reads a provider's: some 10 us for each event. What
was found of it stays with it, so that every further hit is one write (bench/cache.py: 200 events took 3 ms each time).
"""

from typing import Final

from proxy.cache.memory import Kept, Ready, Shape
from proxy.exchange import Dialect, Headers, Meter
from proxy.openai.chunks import as_events
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_object
from proxy.openai.response import inspect
from proxy.openai.sse import EventReader
from proxy.openai.sse_edit import EventEditor

_EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


class KeptReply:
    """Implements `exchange.UpstreamReply`. `meter`: what there is to count of it, counted. Not to be changed."""

    def __init__(self, ready: Ready) -> None:
        self.status = 200
        self.reason = "OK"
        self.headers: Headers = ((b"content-type", ready.content_type),)
        self.meter = ready.meter
        self._rest = ready.body

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


def made_ready(kept: Kept, shape: Shape, dialect: Dialect) -> Ready | None:
    """Return the answer in the shape that is asked for; `None` if it cannot have that shape exactly."""
    if shape == "whole":
        return _whole(kept, dialect) if kept.form == "whole" else None
    if kept.form == "events":
        return _stream(kept.content_type, kept.body, shape, dialect)
    document = load_object(kept.body)
    events = None if document is None else as_events(document)
    return None if events is None else _stream(_EVENT_STREAM, events, shape, dialect)


def _whole(kept: Kept, dialect: Dialect) -> Ready:
    meter = Meter(response_bytes=len(kept.body))
    inspect(dialect, kept.body, meter)
    meter.terminated = True
    return Ready(kept.content_type, kept.body, meter)


def _stream(content_type: bytes, events: bytes, shape: Shape, dialect: Dialect) -> Ready:
    meter = Meter()
    observer = StreamObserver(dialect, meter)
    if shape == "bare":
        editor = EventEditor(observer.observe_and_strip, len(events))
        events = editor.feed(events) + editor.flush()[0]
    else:
        reader = EventReader(len(events))
        for event in filter(None, (*reader.feed(events), reader.flush())):
            observer.observe(event)
    observer.end()
    meter.response_bytes, meter.terminated = len(events), True
    return Ready(content_type, events, meter)
