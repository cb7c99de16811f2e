"""Recognises events that repeat an earlier one with another text, so that nothing but the text has to be decoded.

    data: {"id":"c1",..,"delta":{"content":" hello"},..}],"usage":null,"obfuscation":"x9"}
    |--------------- head ------------------|     |------------- middle -------------|  |tail

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","sequence_number":12,"item_id":..,"delta":" hello","obfuscation":"x9"}
    |--------------------------- head ------------------------|    |----- lead -----|     |--- middle ----|  |tail

Nearly all events of a stream are the same bytes but for the text, a number that counts them and, at some providers,
random characters that hide the text's length. A `Frame` is made of a decoded event and proven by decoding a copy of it
with others in those places: the copy must be the same document with those. By the grammar of JSON, the same holds for
every string and number. An event that differs in any other byte is no repetition and has to be decoded.

| dialect           | text                                                                  |
|-------------------|-----------------------------------------------------------------------|
| chat, completions | one text of one choice, or arguments of a tool call that began before |
| responses         | `delta` of a `response.*.delta`                                       |

Rule of the file: a frame never says anything else than the decoder and the readers of a decoded event would.

Source: RFC 8259 sections 6 and 7; OpenAI API reference: chat completion chunk, `stream_options.include_obfuscation`,
responses streaming.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from proxy.exchange import Dialect
from proxy.openai.channel_keys import Path
from proxy.openai.channels import Text, read_event
from proxy.openai.choices import COUNTED
from proxy.openai.documents import load_object
from proxy.openai.sse import CR
from proxy.openai.stream_usage import strip_usage

_DIALECTS: Final = frozenset({"chat", "completions", "responses"})
_TEXTS: Final[Mapping[str, re.Pattern[bytes]]] = {
    name: re.compile(rb'"%b"[ \t\n]*:[ \t\n]*"((?:[^"\\]|\\.)*)"' % name.encode())
    for name in (*COUNTED, "text", "arguments", "delta")
}
_OBFUSCATION: Final = re.compile(rb'"obfuscation"[ \t\n]*:[ \t\n]*"([0-9A-Za-z]+)"')
_NUMBER: Final = re.compile(rb'"sequence_number"[ \t\n]*:[ \t\n]*([0-9]+)')
_MOST_DIGITS: Final = 15
_JOIN: Final = b"".join
_DATA: Final = re.compile(rb"(?:event: [!-~]+\n)?data: ")
_CALL: Final[Path] = ("choices", 0, "delta", "tool_calls", 0, "function", "arguments")


class Parts(NamedTuple):
    """What is constant. `lead` and `middle` are empty if no number precedes the text, or nothing random follows it."""

    head: bytes
    lead: bytes
    middle: bytes
    tail: bytes


class Frame:
    """What the events have in common. `key`, `path`: channel and place of their text.

    `data_at`: where their data begins. `call`: choice and index of the tool call whose arguments the text continues.
    """

    __slots__ = (
        "_differs_at_end", "_head", "_lead", "_middle", "_sent", "_start", "_stop", "_tail", "call", "data_at",
        "is_sent_whole", "key", "number", "path",
    )  # fmt: skip

    def __init__(self, text: Text, parts: Parts, sent: Parts, data_at: int, call: tuple[int, int] | None) -> None:
        """`sent`: the parts without usage that only we requested."""
        self.key, self.path = text.key, text.path
        self.data_at = data_at
        self.call = call
        self.number = b""
        """Of the latest event that repeats the frame; empty if they have none."""
        self._head, self._lead, self._middle, self._tail = parts
        self._start = len(self._head)
        self._stop = -len(self._tail)
        self._sent = sent
        self.is_sent_whole = sent == parts
        """Nothing of an event has to be left out."""
        self._differs_at_end = sent[:3] == parts[:3]

    def text_of(self, event: bytes) -> str:
        """Return the text of an event that repeats the frame; empty for any other event. Cost: about 0.3 us."""
        literal = event[self._start : self._stop]
        if _JOIN((self._head, literal, self._tail)) != event:  # half of `startswith` and `endswith`
            return ""
        if self._lead:
            number, _, literal = literal.partition(self._lead)
            if not number.isdigit() or len(number) > _MOST_DIGITS or (number[0] == 0x30 and len(number) > 1):
                return ""
            self.number = number
        if self._middle:
            literal, _, hidden = literal.partition(self._middle)
            if not hidden.isalnum():
                return ""
        try:
            text: str = orjson.loads(_JOIN((b'"', literal, b'"')))
        except orjson.JSONDecodeError:
            return ""  # a lone surrogate, or no single string
        return text

    def sent(self, event: bytes) -> bytes:
        """Return what is sent of an event that repeats the frame, unless `is_sent_whole`."""
        head, _, middle, tail = self._sent
        if self._differs_at_end:
            return event[: self._stop] + tail
        text = event[self._start : self._stop]
        if self._middle:
            text, _, hidden = text.partition(self._middle)
            text += middle + hidden
        return head + text + tail


def frame_of(event: bytes, document: dict[str, Any], dialect: Dialect, *, strips_usage: bool) -> Frame | None:
    """Return the frame of an event; `None` if it has none. `document`: its data, decoded.

    The event must have been read: what it says apart from its text is not read again when it is repeated.
    """
    start = _DATA.match(event)
    said = _only_text(document, dialect)
    if said is None or start is None or CR in event or event.find(b"\n", start.end()) != len(event) - 2:
        return None
    pattern = _TEXTS.get(str(said.path[-1]))
    text = None if pattern is None else pattern.search(event)
    if text is None or not event.endswith(b"\n\n"):
        return None
    head, lead, rest = event[: text.start(1)], b"", event[text.end(1) :]
    counter = _NUMBER.search(head) if dialect == "responses" else None
    if counter is not None:
        head, lead = head[: counter.start(1)], head[counter.end(1) :]
    random = _OBFUSCATION.search(rest)
    middle, hidden, tail = (rest[: random.start(1)], random[1], rest[random.end(1) :]) if random else (b"", b"", rest)
    other = head + (b"7" + lead if lead else b"") + text[1] + b"x" + (middle + b"0" if random else b"") + tail
    expected = _replaced(document, said.path, said.text + "x")
    expected |= {"obfuscation": "0"} if random else {}
    expected |= {"sequence_number": 7} if lead else {}
    if load_object(other[start.end() : -2]) != expected:
        return None
    parts = sent = Parts(head, lead, middle, tail)
    if strips_usage and not lead:
        data = strip_usage(event[start.end() : -2], document) or b""
        sent = _shortened(parts, text[1], hidden, event[: start.end()] + data + b"\n\n")
    elif strips_usage:
        return None
    return Frame(said, parts, sent, start.end(), _call(document) if said.path == _CALL else None)


def _only_text(document: dict[str, Any], dialect: Dialect) -> Text | None:
    """Return the text of an event that has exactly one, counted by its size, and says nothing else."""
    if dialect not in _DIALECTS or document.get("error") or document.get("usage") is not None:
        return None
    texts = read_event(dialect, None, document)
    if len(texts.pieces) != 1 or texts.wholes or texts.ends or texts.missed or texts.failed:
        return None
    path, kind = texts.pieces[0].path, document.get("type")
    if dialect == "responses":
        is_text = type(kind) is str and kind.startswith("response.") and not kind.endswith("audio.delta")
        is_counted = is_text and path == ("delta",)
    elif path == _CALL:
        is_counted = _call(document) is not None
    else:
        is_counted = path[:2] == ("choices", 0) and (path[2:] == ("text",) or _is_counted_delta(path))
    return texts.pieces[0] if is_counted else None


def _is_counted_delta(path: Path) -> bool:
    return len(path) == 4 and path[2] == "delta" and path[3] in COUNTED


def _call(document: dict[str, Any]) -> tuple[int, int] | None:
    """Return choice and index of a tool call that is continued; `None` for one that may begin."""
    choice = document["choices"][0]
    call = choice["delta"]["tool_calls"][0]
    place = choice.get("index"), call.get("index")
    return None if call.get("id") or type(place[0]) is not int or type(place[1]) is not int else place


def _replaced(value: Any, path: Path, text: str) -> Any:
    """Return a document with another text in a place."""
    if not path:
        return text
    if type(value) is list:
        return [_replaced(part, path[1:], text) if at == path[0] else part for at, part in enumerate(value)]
    return {**value, path[0]: _replaced(value[path[0]], path[1:], text)}


def _shortened(parts: Parts, text: bytes, hidden: bytes, sent: bytes) -> Parts:
    """Return the parts of an event as it is sent: the one with the usage, which is no text, may be shorter."""
    head, _, middle, tail = parts
    if not sent.startswith(head):
        return Parts(sent[: len(sent) - len(text + middle + hidden + tail)], b"", middle, tail)
    rest = sent[len(head) + len(text) :]
    if rest.startswith(middle + hidden):
        return Parts(head, b"", middle, rest[len(middle) + len(hidden) :])
    return Parts(head, b"", rest[: len(rest) - len(hidden + tail)], tail)
