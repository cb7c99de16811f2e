"""Ends a stream before its provider does, in the provider's own dialect: as if the maximum length had been reached.

| dialect           | what the client gets                                                               |
|-------------------|------------------------------------------------------------------------------------|
| chat, completions | for each open choice a chunk with `finish_reason: "length"`, then `[DONE]`         |
| responses         | `response.incomplete`, reason `max_output_tokens`, with the response as it began   |
| any other         | an error event: there is no form for an early end                                  |

A stream is followed as its events are sent; the stored state is bounded: members of the first chunk, indexes of its
choices, or the event with the response object. Usage is never invented.

Failure mode: a stream with nothing to build an end from, or with something too large, ends with the error event.
Source: OpenAI API reference: chat completion chunk, completion object, `ResponseIncompleteEvent`, realtime `error`.
"""

import json
from typing import Any, Protocol

from proxy.errors import ProxyError
from proxy.exchange import Dialect
from proxy.openai import error_body
from proxy.openai.documents import MAX_NAME, dump_exact, load_exact

MOST_KEPT_BYTES = 262_144
"""Of the event with the response object: it repeats instructions and tools of the request."""
MOST_CHOICES = 256
_SHARED = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Members that all chunks of one answer share."""
_NOTHING_SAID = {"role": "assistant", "content": ""}
"""First delta of a choice."""


class StreamEnd(Protocol):
    """Follows one stream, to be able to end it after any event."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Process an event that the client gets. `document`: decoded `data`; not kept after the call."""

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """Return the events that end the stream regularly, `None` if that is impossible.

        `dropped`: the next event, which is not sent.
        """

    def fail(self, error: ProxyError) -> bytes:
        """Return the event that ends the stream with an error."""


def end_of(dialect: Dialect, *, asked_for_usage: bool) -> StreamEnd:
    """Return the object that ends a stream of `dialect`. `asked_for_usage`: chunks have a `usage`, mostly null."""
    if dialect in ("chat", "completions"):
        return _EndOfChoices(dialect, asked_for_usage)
    return _EndOfResponse() if dialect == "responses" else _EndUnknown(dialect)


def realtime_error(error: ProxyError) -> str:
    """Return the message that ends a realtime client's session."""
    described = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    event = {"type": "error", "event_id": f"event_{error.code}", "error": {**described, "event_id": None}}
    return json.dumps(event, separators=(",", ":"))


class _EndUnknown:
    """A dialect whose streams can only end with an error."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Do nothing, as no state is needed."""

    def finish(self, dropped: dict[str, Any]) -> bytes | None:
        """Return `None`: there is no regular end."""
        return None

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event."""
        return error_body.stream_event(error, self._dialect)


class _EndOfChoices:
    """Chunks with choices, which end one by one."""

    def __init__(self, dialect: Dialect, asked_for_usage: bool) -> None:
        self._dialect = dialect
        self._asked_for_usage = asked_for_usage
        self._shared: dict[str, Any] | None = None
        self._finished: dict[int, bool] = {}
        """Choice sent to the client -> whether its finish reason was sent; at most `MOST_CHOICES`."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Store identity and choices of a chunk. Cost for one delta: about 0.3 us."""
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
        """Finish the choices that have begun, including one that begins with the dropped chunk."""
        shared = _shared(dropped) if self._shared is None else self._shared
        begun = [index for index, finished in self._finished.items() if not finished]
        new = {_index(choice) for choice in _choices(dropped)} - self._finished.keys()
        chunks = [self._chunk(shared, index, {}) for index in begun]
        chunks += [self._chunk(shared, index, _NOTHING_SAID) for index in sorted(new)[:MOST_CHOICES]]
        return b"".join([*chunks, b"data: [DONE]\n\n"])

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event, after which there must be no terminator."""
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
        """Data of the first event with a response object; empty if there was none, or it was too large."""
        self._number = 0
        """Number of the next event."""

    def follow(self, data: bytes, document: dict[str, Any]) -> None:
        """Store the response object and the event's number."""
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
            return None  # nested too deeply to be encoded

    def fail(self, error: ProxyError) -> bytes:
        """Return the error event with the next number."""
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
