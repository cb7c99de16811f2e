"""Ending a stream before its provider does, in the provider's own dialect: as if the maximum length had been reached.

| dialect           | what the client gets                                                               |
|-------------------|------------------------------------------------------------------------------------|
| chat, completions | for each open choice a chunk with `finish_reason: "length"`, then `[DONE]`         |
| responses         | `response.incomplete`, reason `max_output_tokens`, with the response as it began   |
| any other         | an error event: there is no shape for an early end                                 |

A stream is followed while its events leave; what is kept of it is bounded: names of the first chunk, numbers of its
choices, or the event that brought the response object. Figures of usage are never made up.

Failure mode: a stream that showed nothing to build an end from, or too large a thing, ends with the error event.
Source: OpenAI API reference: chat completion chunk, completion object, `ResponseIncompleteEvent`, realtime `error`.
"""

import json
from typing import Any, Protocol

from proxy.errors import ProxyError
from proxy.exchange import Dialect
from proxy.openai import error_body
from proxy.openai.documents import MAX_NAME, dump_exact, load_exact

MOST_KEPT_BYTES = 262_144
"""Of the event that brings the response object: it repeats instructions and tools of the request."""
MOST_CHOICES = 256
_SHARED = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Members that all chunks of one answer have in common."""
_NOTHING_SAID = {"role": "assistant", "content": ""}
"""First delta of a choice."""


class StreamEnd(Protocol):
    """Follows one stream, to be able to end it after any event."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Note an event that the client gets. `document`: `data`, decoded; kept no longer than the call."""

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """Return the events that end the stream regularly, `None` where that cannot be done.

        `dropped`: the event that would have come next and is not sent.
        """

    def fail(self, error: ProxyError) -> bytes:
        """Return the event that ends the stream with an error."""


def end_of(dialect: Dialect, *, asked_for_usage: bool) -> StreamEnd:
    """Return what ends a stream of `dialect`. `asked_for_usage`: every chunk has a member `usage`, null in most."""
    if dialect in ("chat", "completions"):
        return _EndOfChoices(dialect, asked_for_usage)
    return _EndOfResponse() if dialect == "responses" else _EndUnknown(dialect)


def realtime_error(error: ProxyError) -> str:
    """Return the message that tells a realtime client why its session ends."""
    described = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    event = {"type": "error", "event_id": f"event_{error.code}", "error": {**described, "event_id": None}}
    return json.dumps(event, separators=(",", ":"))


class _EndUnknown:
    """A dialect whose streams can only fail."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Nothing has to be known."""

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """No regular end is known."""
        return None

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event."""
        return error_body.stream_event(error, self._dialect)


class _EndOfChoices:
    """Chunks of choices, which end one by one."""

    def __init__(self, dialect: Dialect, asked_for_usage: bool) -> None:
        self._dialect = dialect
        self._asked_for_usage = asked_for_usage
        self._shared: dict[str, Any] | None = None
        self._finished: dict[int, bool] = {}
        """Choice that the client has seen -> it has seen its finish reason; at most `MOST_CHOICES`."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Note identity and choices of a chunk. Cost for one delta: about 0.3 us."""
        finished = self._finished
        for choice in _choices(document):
            if self._shared is None:
                self._shared = _shared(document)
            index = _index(choice)
            if type(choice.get("finish_reason")) is str:
                if index in finished or len(finished) < MOST_CHOICES:
                    finished[index] = True
            elif index not in finished and len(finished) < MOST_CHOICES:
                finished[index] = False

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """Finish what has begun, also a choice that would have begun with the dropped chunk."""
        shared = _shared(dropped) if self._shared is None else self._shared
        begun = [index for index, finished in self._finished.items() if not finished]
        new = {_index(choice) for choice in _choices(dropped)} - self._finished.keys()
        chunks = [self._chunk(shared, index, {}) for index in begun]
        chunks += [self._chunk(shared, index, _NOTHING_SAID) for index in sorted(new)[:MOST_CHOICES]]
        return b"".join([*chunks, b"data: [DONE]\n\n"])

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event, after which no terminator may come."""
        return error_body.stream_event(error, self._dialect)

    def _chunk(self, shared: dict[str, Any], index: int, delta: dict[str, str]) -> bytes:
        said: dict[str, Any] = {"delta": delta} if self._dialect == "chat" else {"text": ""}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": "length"}
        usage = {"usage": None} if self._asked_for_usage else {}
        return b"data: %b\n\n" % dump_exact({**shared, "choices": [choice], **usage})


class _EndOfResponse:
    """Events of one response, numbered."""

    def __init__(self) -> None:
        self._began = b""
        """Data of the first event with a response object; empty if there was none, or if it was too large."""
        self._number = 0
        """Number of the next event."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Note the response object and the event's number."""
        number = document.get("sequence_number")
        self._number = 1 + (number if type(number) is int else self._number)
        if not self._began and len(data) <= MOST_KEPT_BYTES and type(document.get("response")) is dict:
            self._began = bytes(data)

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """Return the response as it began, now incomplete."""
        if not self._began:
            return None
        try:
            response = load_exact(self._began)["response"]
            response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            event = {"type": "response.incomplete", "sequence_number": self._number, "response": response}
            return b"event: response.incomplete\ndata: %b\n\n" % dump_exact(event)
        except ValueError:
            return None  # nested more deeply than can be written

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event under the next number."""
        return error_body.stream_event(error, "responses", self._number)


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [choice for choice in choices if type(choice) is dict] if type(choices) is list else []


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0


def _shared(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in _SHARED if name in document and _is_short(document[name])}


def _is_short(value: Any) -> bool:
    return value is None or type(value) is int or (type(value) is str and len(value) <= MAX_NAME)
