"""Converts a complete chat completion, or completion, to the equivalent stream: same content, in few chunks.

    role and other members -> each text -> finish reason, for every choice -> usage -> [DONE]

Every chunk has `usage: null` and the last one the usage, as if the client had requested it; it is removed for those who
did not (`stream_usage`).

Failure mode: `None` for an answer without such a stream (audio, an unknown format).
Source: OpenAI API reference, chat completion object and chunk, completion object, "Streaming".
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

_KINDS: Final[Mapping[str, str]] = {"chat.completion": "chat.completion.chunk", "text_completion": "text_completion"}
_PIECES: Final = ("reasoning_content", "reasoning", "content", "refusal")
"""Texts of a message, each in its own chunk and in the order in which models generate them."""
_UNSTREAMED: Final = ("audio",)
_OF_CHOICES: Final = frozenset({"index", "message", "logprobs", "finish_reason"})
_DONE: Final = b"data: [DONE]\n\n"


def as_events(document: Mapping[str, Any]) -> bytes | None:
    """Return the stream of an answer, including its terminator; `None` if impossible. `document`: the decoded body."""
    kind, choices = _KINDS.get(str(document.get("object"))), document.get("choices")
    if kind is None or type(choices) is not list or not all(map(_is_streamable, choices)):
        return None
    shared = {name: value for name, value in document.items() if name not in ("object", "choices", "usage")}
    base = {**shared, "object": kind, "usage": None}
    deltas = _of_text if kind == "text_completion" else _of_message
    try:
        events = [_event({**base, "choices": [choice]}) for whole in choices for choice in deltas(whole)]
        if document.get("usage") is not None:
            events.append(_event({**base, "choices": [], "usage": document["usage"]}))
    except TypeError:  # a lone surrogate
        return None
    return b"".join([*events, _DONE])


def _is_streamable(choice: Any) -> bool:
    if type(choice) is not dict or type(choice.get("index")) is not int:
        return False
    message = choice.get("message")
    if message is None:
        return type(choice.get("text")) is str
    if type(message) is not dict or any(message.get(name) is not None for name in _UNSTREAMED):
        return False
    calls = message.get("tool_calls")
    return calls is None or (type(calls) is list and all(type(call) is dict for call in calls))


def _of_message(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choices of the chunks of one message."""
    message = choice["message"]
    texts = {name: message[name] for name in _PIECES if type(message.get(name)) is str}
    opening = {name: value for name, value in message.items() if name not in _PIECES and name != "tool_calls"}
    opening["content"] = "" if "content" in texts else None
    yield _choice(choice, opening)
    measured = "content" if texts.get("content") else "refusal"
    for name, text in texts.items():
        if text:
            yield _choice(choice, {name: text}, logprobs=choice.get("logprobs") if name == measured else None)
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield _choice(choice, {"tool_calls": [{"index": number, **call}]})
    others = {name: value for name, value in choice.items() if name not in _OF_CHOICES}
    yield {**_choice(choice, {}, finish_reason=choice.get("finish_reason")), **others}


def _of_text(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {**choice, "finish_reason": None}
    yield {**choice, "text": "", "logprobs": None}


def _choice(
    choice: Mapping[str, Any], delta: Mapping[str, Any], *, logprobs: Any = None, finish_reason: Any = None
) -> dict[str, Any]:
    return {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
