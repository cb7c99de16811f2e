"""A cached answer in place of a provider's, in the form that a request asks for.

Events are sent unchanged, except for usage that the client did not request. A stream can also be made from a complete
chat completion or completion (`openai.chunks`); a complete answer is never made from a stream.

An answer is read when it is first requested in a form, like a relay reads a provider's: some 10 us per event. The
result is cached with it, so that every further hit is one write (bench/cache.py: 200 events took 3 ms each time).
"""

from typing import Final

from proxy.cache.memory import Kept, Ready, Shape
from proxy.exchange import Dialect, Headers, Meter, Sink, first_values
from proxy.openai.chunks import as_events
from proxy.openai.deltas import StreamObserver
from proxy.openai.documents import load_object
from proxy.openai.response import inspect
from proxy.openai.sse import EventReader
from proxy.openai.sse_edit import EventEditor

_EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


class KeptReply:
    """Implements `exchange.UpstreamReply`. `meter`: the complete counts of the answer. Not to be modified."""

    def __init__(self, ready: Ready) -> None:
        self.status = 200
        self.reason = "OK"
        self.headers: Headers = ((b"content-type", ready.content_type),)
        self.fields = first_values(self.headers)
        self.meter = ready.meter
        self._rest = ready.body

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return the whole body, then its end."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def complete(self) -> bool:
        """True: everything is in memory."""
        return True

    def close(self) -> None:
        """Do nothing, as no resources are held."""


def made_ready(kept: Kept, shape: Shape, dialect: Dialect) -> Ready | None:
    """Return the answer in the requested form; `None` if it cannot be given exactly in that form."""
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
