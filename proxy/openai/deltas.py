"""Reads a provider's stream, event by event, into the attempt's `Meter`.

| dialect           | text                    | usage                                  | terminator         |
|-------------------|-------------------------|----------------------------------------|--------------------|
| chat, completions | `choices[]` deltas      | last chunk, or any chunk that has it   | `[DONE]`           |
| responses         | `response.*.delta`      | `response.completed` and its siblings  | the same events    |
| audio             | `transcript.text.delta` | `transcript.text.done`, `speech..done` | the same events    |
| images            | -                       | `image_*.completed`, one per image     | the same, if last  |
| realtime          | as responses            | of every response and transcription    | none               |
| generic           | by shape: one of these  | any `usage`; the latest counts         | none known         |
| (messages)        | `content_block_delta`   | `message_start`, then `message_delta`  | `message_stop`     |
| none              | -                       | not read: it was charged before        | none known         |

Rules of the file: nothing is read after the terminator. Anything may be missing or of the wrong type; nothing raises.
Text is counted, never stored. The meter is correct at every moment, so that a stream cut anywhere can be settled.

Source: OpenAI API reference: chat completion chunk, responses streaming, audio and image stream events, realtime;
Anthropic's API reference, "Streaming messages", for what has no dialect of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from proxy.exchange import Dialect, Meter, Usage
from proxy.openai import json_steps
from proxy.openai.choices import ChoiceReader, note_finish, read_output_item, text_bytes
from proxy.openai.documents import load_object, printable
from proxy.openai.facts import (
    add_to_usage,
    note_error,
    note_media_usage,
    note_usage,
    read_identity,
    read_response,
)
from proxy.openai.pieces import encoded, utf8_len
from proxy.openai.sse import Event
from proxy.openai.stream_usage import strip_usage
from proxy.openai.usage import add_usage

_TERMINATED: frozenset[Dialect] = frozenset({"chat", "completions", "responses", "audio", "images"})
_WITHOUT_TEXT: frozenset[Dialect] = frozenset({"images", "none"})
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")
_IMAGE_ENDS = ("image_generation.completed", "image_edit.completed")
_AUDIO_ENDS = ("transcript.text.done", "speech.audio.done")
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_MESSAGE_TEXTS = ("text", "thinking", "partial_json")
_ENDS = (*_RESPONSE_ENDS, *_AUDIO_ENDS)


def has_terminator(dialect: Dialect) -> bool:
    """Tell whether a stream without its terminator was truncated; in other dialects, any end is regular."""
    return dialect in _TERMINATED


def has_text(dialect: Dialect) -> bool:
    """Tell whether the dialect's streams can contain text; otherwise no event counts as generated text."""
    return dialect not in _WITHOUT_TEXT


class StreamObserver:
    """Reads one stream, or the provider's messages of one websocket."""

    def __init__(self, dialect: Dialect, meter: Meter) -> None:
        self._dialect = dialect
        self._meter = meter
        self._choices = ChoiceReader(meter)
        self._over = False
        self._image_finished = False
        self._transcriber: str | None = None
        """Model that transcribes the input of a session."""
        # Not bound: a method of its own would keep it, and the meter, until cycles are collected.
        self._read = _READERS.get(dialect, StreamObserver._read_by_shape)

    @property
    def all_finished(self) -> bool:
        """True if everything that began has ended (choices, images), so that the stream may end here."""
        return self._choices.all_finished or self._image_finished

    def observe(self, event: Event) -> dict[str, Any] | None:
        """Count one event; return its document, `None` if it is not a JSON object or nothing is read any more.

        Free that of a large event with `json_steps.let_go`, apart from the event loop.
        """
        meter = self._meter
        meter.events += 1
        if self._over:
            return None
        data = event.data
        document = load_object(data) if len(data) <= json_steps.LARGE_BYTES else json_steps.read_container(data)
        if type(document) is not dict:
            self._note_end(event)
            json_steps.let_go(document, data)
            return None
        if error := document.get("error"):
            note_error(error, meter)
        kind = document.get("type")
        if type(kind) is not str:
            kind = "" if event.name is None else _text(event.name)
        size = meter.output_text_bytes
        self._read(self, kind, document)
        if meter.output_text_bytes != size:
            meter.text_deltas += 1
        return document

    def count(self, event: Event) -> None:
        """Count one event."""
        document = self.observe(event)
        if len(event.data) > json_steps.LARGE_BYTES:
            json_steps.let_go(document, event.data)

    def observe_arguments(self, choice: int, place: int, text: str) -> None:
        """Count arguments of a tool call that has begun, found without decoding their event."""
        self._choices.read_arguments(choice, place, text)

    def end(self) -> None:
        """The stream has ended: there is nothing to add."""

    def count_unread(self, size: int) -> None:
        """Count bytes that are too many to be parsed: all of them, if they may be text."""
        if has_text(self._dialect) and not self._over:
            self._meter.output_text_bytes += size
            self._meter.text_deltas += 1

    def observe_message(self, text: str) -> None:
        """Count one text message of a websocket."""
        self.count(Event(None, encoded(text, "surrogatepass")))

    def observe_and_strip(self, event: Event) -> bytes | None:
        """Count one event and return its data without usage that the client did not request; `None` drops it."""
        document = self.observe(event)
        if document is None:
            return event.data
        left = strip_usage(event.data, document)
        if len(event.data) > json_steps.LARGE_BYTES:
            json_steps.let_go(document, event.data)
        return left

    def _read_chunk(self, _kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        if meter.response_model is None or meter.response_id is None:
            read_identity(document, meter)
        self._choices.read(document.get("choices"))
        if document.get("usage") is not None:
            note_usage(document, meter)
            meter.is_interim = not self._choices.all_finished and not document.get("error")
            meter.answered = meter.output_text_bytes + meter.sound_tokens

    def _read_response_event(self, kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        if kind.endswith(".delta"):
            delta = document.get("delta")
            if type(delta) is str:
                if kind.endswith("audio.delta"):
                    meter.sound_tokens += _sound_tokens(delta)
                else:
                    meter.output_text_bytes += utf8_len(delta)
            return
        if kind == "response.output_item.done":
            read_output_item(document.get("item"), meter)
        elif kind == "error" and not document.get("error"):
            note_error(document, meter)
        response = document.get("response")
        if type(response) is dict:
            read_identity(response, meter)
            if kind in _RESPONSE_ENDS:
                read_response(response, meter)
                note_usage(response, meter)
        if kind in _RESPONSE_ENDS:
            self._over = meter.terminated = True

    def _read_realtime_event(self, kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        response, session = document.get("response"), document.get("session")
        if type(session) is dict:
            read_identity(session, meter)
            self._transcriber = _transcriber(session) or self._transcriber
        if kind == _TRANSCRIBED:
            said = text_bytes(document.get("transcript"))
            if add_to_usage(document, self._transcriber or meter.response_model, meter):
                meter.answered = min(meter.answered + said, meter.output_text_bytes)
            else:
                meter.output_text_bytes += said
        elif kind != "response.done" and kind not in _RESPONSE_ENDS:
            self._read_response_event(kind, document)
            if type(response) is dict and (model := printable(response.get("model"))):
                meter.usage_by_model.setdefault(model, Usage())  # begun: it may never be finished
        elif type(response) is dict:
            read_response(response, meter)
            meter.latest_response_id = printable(response.get("id")) or meter.latest_response_id
            before = 0 if meter.usage is None else meter.usage.input_tokens
            if add_to_usage(response, printable(response.get("model")) or meter.response_model, meter):
                assert meter.usage is not None
                meter.latest_input_tokens = meter.usage.input_tokens - before
                meter.answered = meter.output_text_bytes + meter.sound_tokens

    def _read_audio_event(self, kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        if kind == "transcript.text.delta":
            meter.output_text_bytes += text_bytes(document.get("delta"))
        if kind.startswith("transcript."):
            note_media_usage(document, "audio", meter)
        else:
            note_usage(document, meter)
        if kind in _AUDIO_ENDS:
            self._over = meter.terminated = True

    def _read_image_event(self, kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        if kind in _IMAGE_ENDS:
            known, meter.usage = meter.usage, None
            note_media_usage(document, "images", meter)
            meter.usage = add_usage(known, meter.usage or Usage(images=1))
            self._image_finished = True

    def _read_message_event(self, kind: str, document: dict[str, Any]) -> None:
        meter = self._meter
        message, delta = document.get("message"), document.get("delta")
        if type(message) is dict:
            document = message
            read_identity(message, meter)
        if type(delta) is dict:
            meter.output_text_bytes += sum(text_bytes(delta.get(name)) for name in _MESSAGE_TEXTS)
            note_finish(meter, printable(delta.get("stop_reason")))
        note_usage(document, meter)
        meter.is_interim = kind not in ("message_delta", "message_stop")
        meter.answered = meter.output_text_bytes
        if kind == "message_stop":
            self._over = meter.terminated = True

    def _read_by_shape(self, kind: str, document: dict[str, Any]) -> None:
        if kind.startswith("response."):
            self._read_response_event(kind, document)
        elif kind.startswith(("message_", "content_block_")):
            self._read_message_event(kind, document)
        else:
            self._read_chunk(kind, document)

    def _read_nothing(self, kind: str, _document: dict[str, Any]) -> None:
        self._note_kind(kind)

    def _note_end(self, event: Event) -> None:
        """Detect the end from an event that is not a JSON object, or too large to be parsed, by its name."""
        if event.data.startswith(b"[DONE]"):
            self._over = self._meter.terminated = True
        else:
            self._note_kind(_text(event.name))

    def _note_kind(self, kind: str) -> None:
        if kind in _ENDS:
            self._over = self._meter.terminated = True
        elif kind in _IMAGE_ENDS:
            self._image_finished = True


_READERS: Final[Mapping[Dialect, Callable[[StreamObserver, str, dict[str, Any]], None]]] = {
    "chat": StreamObserver._read_chunk,
    "completions": StreamObserver._read_chunk,
    "responses": StreamObserver._read_response_event,
    "realtime": StreamObserver._read_realtime_event,
    "audio": StreamObserver._read_audio_event,
    "images": StreamObserver._read_image_event,
    "none": StreamObserver._read_nothing,
}
"""Dialect -> what reads an event of its streams."""


def _sound_tokens(base64: str) -> int:
    """Return an upper bound of audio tokens: one per 50 ms, which take 400 bytes in the smallest format (G.711)."""
    return len(base64) * 3 // 4 // 400 + 1


def _transcriber(session: dict[str, Any]) -> str | None:
    """Return the model that a session names for transcription, in the current form or the one of the beta."""
    audio = session.get("audio")
    heard = audio.get("input") if type(audio) is dict else None
    for place, name in ((heard, "transcription"), (session, "input_audio_transcription")):
        asked = place.get(name) if type(place) is dict else None
        if type(asked) is dict and (model := printable(asked.get("model"))):
            return model
    return None


def _text(name: bytes | None) -> str:
    return "" if name is None else name.decode("latin-1")
