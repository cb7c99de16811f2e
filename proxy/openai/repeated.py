"""Recognises chunks that repeat an earlier one with another text, so that nothing but the text has to be decoded.

    data: {"id":"c1",..,"delta":{"content":" hello"},..}],"usage":null,"obfuscation":"x9"}
    |--------------- head ------------------|     |------------- middle -------------|  |tail

Nearly all chunks of a stream are the same bytes but for the text and, at some providers, a few random characters that
hide its length. A `Frame` is made of a decoded chunk and proven by decoding a copy of it with another text in that
place: the copy must be the same document with that text. By the grammar of JSON, the same then holds for every string.
A chunk that differs in any other byte is no repetition and has to be decoded.

Rule of the file: a frame never says anything else than the decoder and the readers of a decoded chunk would.

Source: RFC 8259 section 7; OpenAI API reference: chat completion chunk, `stream_options.include_obfuscation`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.openai.channels import Key, read_usual
from proxy.openai.choices import COUNTED
from proxy.openai.documents import load_object
from proxy.openai.sse import CR, single_event
from proxy.openai.stream_usage import strip_usage

_TEXTS: Final[Mapping[str, re.Pattern[bytes]]] = {
    name: re.compile(rb'"%b"[ \t\n]*:[ \t\n]*"((?:[^"\\]|\\.)*)"' % name.encode()) for name in COUNTED
}
_OBFUSCATION: Final = re.compile(rb'"obfuscation"[ \t\n]*:[ \t\n]*"([0-9A-Za-z]+)"')

Parts = tuple[bytes, bytes, bytes]
"""Head, middle and tail of a chunk. The middle is empty if nothing but the text varies."""


class Frame:
    """What the chunks have in common. `key`: the channel of their text."""

    __slots__ = (
        "_differs_at_end", "_head", "_middle", "_sent", "_start", "_stop", "_tail", "is_sent_whole", "key",
    )  # fmt: skip

    def __init__(self, key: Key, parts: Parts, sent: Parts) -> None:
        """`sent`: the parts without usage that only we requested."""
        self.key = key
        self._head, self._middle, self._tail = parts
        self._start = len(self._head) - 1
        self._stop = 1 - len(self._tail)
        self._sent = sent
        self.is_sent_whole = sent == parts
        """Nothing of an event has to be left out."""
        self._differs_at_end = sent[:2] == parts[:2]

    def text_of(self, event: bytes) -> str:
        """Return the text of an event that repeats the frame; empty for any other event. Cost: about 0.3 us."""
        if not (event.startswith(self._head) and event.endswith(self._tail)):
            return ""
        literal = event[self._start : self._stop]
        if self._middle:
            literal, _, hidden = literal.partition(self._middle)
            if not hidden[:-1].isalnum():
                return ""
            literal += b'"'
        try:
            text: str = orjson.loads(literal)
        except orjson.JSONDecodeError:
            return ""  # a lone surrogate, or no single string
        return text

    def sent(self, event: bytes) -> bytes:
        """Return what is sent of an event that repeats the frame, unless `is_sent_whole`."""
        head, middle, tail = self._sent
        if self._differs_at_end:
            return event[: self._stop - 1] + tail
        text = event[self._start + 1 : self._stop - 1]
        if self._middle:
            text, _, hidden = text.partition(self._middle)
            text += middle + hidden
        return head + text + tail


def frame_of(event: bytes, document: dict[str, Any], *, strips_usage: bool) -> Frame | None:
    """Return the frame of a chunk of chat choices; `None` if it has none. `document`: its data, decoded.

    The chunk must have been read: what it says apart from its text is not read again when it is repeated.
    """
    usual = read_usual(document)
    if usual is None or document.get("usage") is not None or single_event(event) is None or CR in event:
        return None
    key, said = usual
    pattern = _TEXTS.get(str(key[2]))
    if pattern is None or (text := pattern.search(event)) is None:
        return None
    head, rest = event[: text.start(1)], event[text.end(1) :]
    random = _OBFUSCATION.search(rest)
    middle, hidden, tail = (rest[: random.start(1)], random[1], rest[random.end(1) :]) if random else (b"", b"", rest)
    other = head + text[1] + b"x" + (middle + b"0" if random else b"") + tail
    if load_object(other[6:-2]) != _with_text(document, str(key[2]), said + "x", "0" if random else None):
        return None
    parts = head, middle, tail
    if not strips_usage:
        return Frame(key, parts, parts)
    stripped = b"data: %b\n\n" % (strip_usage(event[6:-2], document) or b"")
    return Frame(key, parts, _shortened(parts, text[1], hidden, stripped))


def _with_text(document: dict[str, Any], name: str, text: str, random: str | None) -> dict[str, Any]:
    """Return a chunk with another text and other random characters."""
    choice = document["choices"][0]
    changed = {**document, "choices": [{**choice, "delta": {**choice["delta"], name: text}}]}
    return changed if random is None else {**changed, "obfuscation": random}


def _shortened(parts: Parts, text: bytes, hidden: bytes, sent: bytes) -> Parts:
    """Return the parts of an event as it is sent: the one with the usage, which is no text, may be shorter."""
    head, middle, tail = parts
    if not sent.startswith(head):
        return sent[: len(sent) - len(text + middle + hidden + tail)], middle, tail
    rest = sent[len(head) + len(text) :]
    if rest.startswith(middle + hidden):
        return head, middle, rest[len(middle) + len(hidden) :]
    return head, rest[: len(rest) - len(hidden + tail)], tail
