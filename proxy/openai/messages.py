"""The content of an answer: the text, refusal, tool calls and end reason of each choice.

    whole       chat completion `choices`, or the `output` of a response
    stream      the same, from the pieces in chunks, or from the response in the last event

Rule of the file: pure; anything may be missing or of the wrong type, nothing raises. A response is one choice.
Reasoning is not included.

Source: OpenAI API reference: chat completion object and chunk, response object, responses streaming.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from proxy.exchange import Dialect

End = Literal["length", "filter", "other", ""]
"""Why a choice ended: at its maximum, by the provider's filter, otherwise; empty: not reported."""

_ENDS: Final[Mapping[Any, End]] = {
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "content_filter": "filter",
}  # fmt: skip
_SILENT: Final = frozenset({"reasoning", "message", "function_call", "custom_tool_call"})
"""Items of a response that are read, or that have no content for the client."""


@dataclass(slots=True)
class Call:
    """A tool call. `is_function`: its arguments are a JSON document; else they are free text."""

    name: str = ""
    arguments: str = ""
    is_function: bool = True


@dataclass(slots=True)
class Message:
    """One choice."""

    text: str = ""
    refusal: str = ""
    calls: tuple[Call, ...] = ()
    end: End = ""
    has_media: bool = False
    """It contains something other than text: audio, an image, a search, another kind of call."""


def whole_messages(dialect: Dialect, document: Mapping[str, Any] | None) -> tuple[Message, ...]:
    """Return the choices of a complete answer; empty if it has none. `dialect`: chat or responses."""
    if document is None:
        return ()
    if dialect == "responses":
        return (_of_response(document, _list(document.get("output"))),)
    return tuple([_of_message(choice) for choice in _objects(document.get("choices"))])


class MessageReader:
    """Assembles the choices of a stream. `dialect`: chat or responses."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_response = dialect == "responses"
        self._choices: dict[int, _Pieces] = {}
        self._items: list[Any] = []
        self._response: Mapping[str, Any] | None = None

    def add(self, document: Mapping[str, Any]) -> None:
        """Take the document of the next event."""
        if not self._is_response:
            for choice in _objects(document.get("choices")):
                self._choices.setdefault(_index(choice), _Pieces()).add(choice)
            return
        if document.get("type") == "response.output_item.done":
            self._items.append(document.get("item"))
        self._response = _object(document.get("response")) or self._response

    def said(self) -> tuple[Message, ...]:
        """Return the choices so far."""
        if not self._is_response:
            return tuple([self._choices[index].said() for index in sorted(self._choices)])
        if self._response is None:
            return ()
        return (_of_response(self._response, _list(self._response.get("output")) or self._items),)


class _Pieces:
    """One choice of a stream."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, tuple[list[str], list[str], bool]] = {}
        """Names and arguments by the call's index, and whether it is a function call."""
        self._end: End = ""
        self._has_media = False

    def add(self, choice: Mapping[str, Any]) -> None:
        """Take a piece."""
        delta = _object(choice.get("delta")) or _object(choice.get("message"))
        self._texts.append(_text(delta.get("content")))
        self._refusals.append(_text(delta.get("refusal")))
        self._has_media = self._has_media or bool(delta.get("audio"))
        for place, call in enumerate(_calls(delta)):
            body, is_function = _body(call)
            names, arguments, _ = self._calls.setdefault(_index(call, place), ([], [], is_function))
            names.append(_text(body.get("name")))
            arguments.append(_text(body.get("arguments" if is_function else "input")))
        if (reason := choice.get("finish_reason")) is not None:
            self._end = _end(reason)

    def said(self) -> Message:
        """Return the assembled choice."""
        calls = [Call("".join(names), "".join(parts), kind) for _, (names, parts, kind) in sorted(self._calls.items())]
        return Message("".join(self._texts), "".join(self._refusals), tuple(calls), self._end, self._has_media)


def _of_message(choice: Mapping[str, Any]) -> Message:
    pieces = _Pieces()
    pieces.add(choice)
    return pieces.said()


def _of_response(response: Mapping[str, Any], items: list[Any]) -> Message:
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[Call] = []
    has_media = False
    for item in _objects(items):
        kind = item.get("type")
        if kind in ("function_call", "custom_tool_call"):
            is_function = kind == "function_call"
            arguments = _text(item.get("arguments" if is_function else "input"))
            calls.append(Call(_text(item.get("name")), arguments, is_function))
        for part in _objects(item.get("content")) if kind == "message" else ():
            texts.append(_text(part.get("text")))
            refusals.append(_text(part.get("refusal")))
        has_media = has_media or kind not in _SILENT
    reason = _object(response.get("incomplete_details")).get("reason")
    return Message("".join(texts), "".join(refusals), tuple(calls), _end(reason or response.get("status")), has_media)


def _calls(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = _objects(said.get("tool_calls"))
    old = _object(said.get("function_call"))
    return [*calls, {"function": old}] if old else calls


def _body(call: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    custom = _object(call.get("custom"))
    return (custom, False) if custom else (_object(call.get("function")), True)


def _end(reason: Any) -> End:
    return _ENDS.get(reason, "other") if type(reason) is str else ""


def _text(value: Any) -> str:
    """Return a text, or the texts of a list of parts."""
    if type(value) is str:
        return value
    return "".join([_text(part.get("text")) for part in _objects(value)]) if type(value) is list else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if type(value) is dict else {}


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if type(one) is dict] if type(value) is list else []


def _index(value: Mapping[str, Any], default: int = 0) -> int:
    index = value.get("index")
    return index if type(index) is int else default
