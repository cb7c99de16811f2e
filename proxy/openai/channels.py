"""Where generated text is in events and answers, and which channel each piece of it continues.

A channel is one text that a client assembles from pieces: the content of a choice, its reasoning, the arguments of one
tool call. A text that arrives complete (a snapshot, a title, an error message) is not a channel.

| shape                           | channel                                    | ends with                   |
|---------------------------------|--------------------------------------------|-----------------------------|
| `choices[]` with `delta`/`text` | choice, every text in it, calls by `index` | the choice's finish reason  |
| the name of a tool in them      | choice, call                               | every piece: it never waits |
| log probabilities of other text | choice or part                             | as the text beside them     |
| `<stem>.delta`                  | output, part, stem                         | `.done` of one of the three |
| `content_block_delta`           | block, member                              | `content_block_stop`        |
| any other JSON, unknown dialect | member, by its place                       | the end of the stream       |
| data that is not JSON           | one                                        | the end of the stream       |

`[DONE]`, an answer's own end and the end of the stream end all channels. In a session (`realtime`), the texts of an
unknown message are complete: a channel would end with the session, and text held for it could wait for too long.

Rules of the file: texts are found by shape, so that a new member of a known event is a channel too; exclusions are
listed by name: labels, ids, echoes of the request, encoded media. Anything may be missing or of the wrong type; nothing
raises for any input.
Source: OpenAI API reference: chat completion chunk, responses streaming, realtime server events, transcription events;
`reasoning_content`, `reasoning_details`, `thinking` as DeepSeek, vLLM, OpenRouter, Mistral and Anthropic spell it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from proxy.exchange import Dialect
from proxy.nouns.scanners import TextKind
from proxy.openai.binary import is_base64
from proxy.openai.channel_keys import ALL, Key, Path, block_of, ended_by, part_of
from proxy.openai.channels_media import MAYBE_MEDIA, hands_out_credentials, is_media, left_out
from proxy.openai.member_names import SHORTEST, telling
from proxy.openai.token_texts import LOGPROBS, spelled

CALLED: Final = "name"
"""The last step of the channel of a tool's name, which clients put together. It ends with every piece."""
PLAIN: Final[Key] = ("data",)
"""The channel of data that is not JSON."""

_LABELS: Final = frozenset(
    "id index object type role model created created_at completed_at expires_at finish_reason native_finish_reason "
    "stop_reason system_fingerprint service_tier call_id item_id response_id previous_response_id event_id "
    "previous_item_id tool_call_id container_id file_id vector_store_id usage obfuscation logprobs "
    "top_logprobs prompt_logprobs completion_probabilities token_ids tokens encrypted_content signature "
    "client_secret".split()
)
"""Members that never contain text of a model."""
_CHUNK: Final = _LABELS | {"choices"}
_CHOICE: Final = _LABELS | {"delta"}
_WHOLE_CHOICE: Final = _LABELS | {"message"}
_ATOMS: Final = frozenset("name title url filename server_label provider language status detail format voice".split())
"""Members that are complete even in events with pieces."""
_CALLABLE: Final = frozenset({"function", "function_call", "custom"})
_DOCUMENTS: Final = frozenset({"arguments", "partial_json"})
"""Members whose text is a JSON document."""
_NUMBERS: Final = frozenset({int, float})
_PIECE: Final = 1 << 16
_NAMED: Final = frozenset(
    "choices content refusal reasoning reasoning_content reasoning_details thinking text tool_calls function custom "
    "arguments input function_call audio transcript output delta message summary item part response error annotations "
    "code comment data title url name filename segments words results revised_prompt partial_json logprobs".split()
)
"""Members that are named in places; any other could have been chosen by a client."""
_DONE: Final = b"[DONE]"
_STEM: Final = re.compile(r"[a-z_.]{1,64}")


Steps = Sequence[str | int]
"""Of a path or a key that is not needed whole yet."""
_new: Final = tuple.__new__
"""Creates a named tuple in half the time of its constructor (callgrind)."""


class Text(NamedTuple):
    """A piece of a channel."""

    key: Key
    path: Path
    text: str
    kind: TextKind


class Whole(NamedTuple):
    """A complete text."""

    path: Path
    text: str
    kind: TextKind


class Texts:
    """The texts of one event, message or answer."""

    __slots__ = ("ends", "failed", "missed", "names", "pieces", "wholes")

    def __init__(self) -> None:
        self.pieces: list[Text] = []
        self.wholes: list[Whole] = []
        self.names: list[str] = []
        """Names of members that are long enough to be a secret themselves."""
        self.ends: list[Key] = []
        """Channels that end here, after the pieces of this event."""
        self.missed: list[Path] = []
        """Places of media, which cannot be read as text."""
        self.failed = False
        """The provider reports a failure: open texts will not be completed."""


def read_event(dialect: Dialect, name: bytes | None, document: Any) -> Texts:
    """Return the texts of an event. `document`: its data, decoded. Cost for one delta of text: about 1.5 us."""
    texts = Texts()
    if type(document) is not dict:
        _walk(document, (), (), texts, in_pieces=dialect != "realtime")
        return texts
    choices = document.get("choices")
    if type(choices) is list:
        _read_choices(choices, texts)
        _read_others(document, "choices", texts)
        return texts
    kind = document.get("type")
    if type(kind) is not str:
        kind = "" if name is None else name.decode("latin-1")
    if kind.startswith("session."):
        _read_others(document, "session", texts)  # that echoes the client's settings
    elif kind.endswith(".delta"):
        _read_delta(kind, document, texts)
    elif kind == "content_block_delta":
        _walk(document.get("delta"), ("delta",), block_of(document), texts, in_pieces=True)
    elif kind == "transcript.text.segment":
        _walk(document.get("text"), ("text",), ("transcript", "segment"), texts, in_pieces=True)
        _read_others(document, "text", texts)
    else:
        texts.failed = kind == "error" or bool(document.get("error"))
        is_unknown = not kind or (dialect == "generic" and not kind.startswith("response."))
        in_pieces = is_unknown and not texts.failed and dialect != "realtime"
        _walk(document, (), (), texts, in_pieces=in_pieces)
    if (ended := ended_by(kind, document)) is not None:
        texts.ends.append(ended)
    return texts


def read_usual(document: Any) -> tuple[Key, str] | None:
    """Return channel and text of an ordinary chunk with a single piece; `None` for anything else. The result is the one
    of `read_event`, at a fraction of the cost (bench/policy_relay.py).
    """
    if type(document) is not dict or not _CHUNK.issuperset(document):
        return None
    choices = document.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or not _CHOICE.issuperset(choice) or choice.get("finish_reason"):
        return None
    index, delta = choice.get("index"), choice.get("delta")
    if type(index) is not int or type(delta) is not dict:
        return None
    found = None
    for name, value in delta.items():
        if len(name) >= SHORTEST:
            return None
        if not value or name in _LABELS:
            continue
        if found is not None or type(value) is not str or name in _ATOMS or name in MAYBE_MEDIA:
            return None
        found = name
    if found is None or ((logprobs := choice.get(LOGPROBS)) and spelled(logprobs) not in delta[found]):
        return None
    return ("choices", index, found), delta[found]


def usual_path(key: Key) -> Path:
    """Return the path of the text of a channel that `read_usual` returned."""
    return ("choices", 0, "delta", key[2])


def read_plain(dialect: Dialect, data: bytes) -> Texts:
    """Return the texts of an event whose data is not JSON."""
    texts = Texts()
    is_end = data.startswith(_DONE)
    if is_end:
        texts.ends.append(ALL)
    if data and data != _DONE:
        text = data.decode("utf-8", "surrogateescape")
        if is_end or dialect == "realtime":
            texts.wholes.append(Whole((), text, "text"))
        else:
            texts.pieces.append(Text(PLAIN, (), text, "text"))
    return texts


def read_document(dialect: Dialect, document: Any) -> Texts:
    """Return the texts of an answer that is one JSON document."""
    texts = Texts()
    if dialect == "embeddings" and type(document) is dict and "data" in document:
        return texts
    if dialect == "none" and type(document) is dict and hands_out_credentials(document.get("object")):
        return texts
    if (usual := _usual_wholes(document)) is not None:
        texts.wholes = usual
        return texts
    _walk(document, (), (), texts)
    if dialect == "images":
        # The URL of an image is signed: it is an address for the client, not text of a model.
        texts.wholes = [whole for whole in texts.wholes if whole.path[-1:] != ("url",)]
    return texts


def _usual_wholes(document: Any) -> list[Whole] | None:
    """Return the texts of a chat completion in which messages have text alone, as most do; `None` for any other.

    Takes a quarter of the time of a walk, and finds the same.
    """
    if type(document) is not dict or not _CHUNK.issuperset(document) or type(document.get("choices")) is not list:
        return None
    wholes: list[Whole] = []
    for place, choice in enumerate(document["choices"]):
        if type(choice) is not dict or not _WHOLE_CHOICE.issuperset(choice) or choice.get(LOGPROBS):
            return None
        message = choice.get("message")
        if type(message) is not dict:
            return None
        for name, value in message.items():
            if len(name) >= SHORTEST:
                return None
            if not value or name in _LABELS:
                continue
            if name != "content" or type(value) is not str or value.startswith("data:"):
                return None
            wholes.append(_new(Whole, (("choices", place, "message", name), value, "text")))
    return wholes


def place_of(steps: Iterable[str | int]) -> str:
    """Return the name of a channel or a path in the form for records: `choices[0].content`."""
    place = ""
    for step in steps:
        if type(step) is int:
            place += f"[{step}]"
        elif step in _NAMED or ("." in str(step) and _STEM.fullmatch(str(step))):
            place += f".{step}"
        else:
            place += ".*"
    return place.removeprefix(".")


def _read_choices(choices: list[Any], texts: Texts) -> None:
    for place, choice in enumerate(choices):
        if type(choice) is dict:
            _read_choice(place, choice, texts)


def _read_choice(place: int, choice: dict[str, Any], texts: Texts) -> None:
    index = choice.get("index")
    key: Key = ("choices", index if type(index) is int else place)
    _read_beside(choice, ("choices", place), key, texts, in_pieces=True)
    for name, value in choice.items():
        if not value or name in _LABELS:
            continue
        path: Path = ("choices", place, name)
        if name == "message":
            _walk(value, path, (), texts)
        elif name == "delta" and type(value) is dict:
            _read_said(value, path, key, texts)
        elif type(value) is not int:
            _walk(value, path, (*key, name), texts, in_pieces=True)
    if type(reason := choice.get("finish_reason")) is str and reason:
        texts.ends.append(key)


def _read_said(delta: dict[str, Any], path: Path, key: Key, texts: Texts) -> None:
    """Read a delta; plain texts, which are nearly all, without a walk."""
    texts.names += telling(delta)
    for name, value in delta.items():
        if not value or name in _LABELS:
            continue
        if type(value) is str and name not in _ATOMS and name not in MAYBE_MEDIA:
            texts.pieces.append(Text((*key, name), (*path, name), value, "text"))
        else:
            _walk(value, (*path, name), (*key, name), texts, in_pieces=True)


def _read_others(document: dict[str, Any], known: str, texts: Texts) -> None:
    texts.names += telling(document)
    for name, value in document.items():
        if value and name != known and name not in _LABELS and type(value) is not int:
            _walk(value, (name,), (), texts)
            texts.failed = texts.failed or name == "error"


def _read_delta(kind: str, document: dict[str, Any], texts: Texts) -> None:
    stem = kind[: -len(".delta")]
    is_sound = stem.endswith("audio")
    name = "audio" if is_sound and "delta" not in document else "delta"
    delta = document.get(name)
    key = (*part_of(document), stem)
    if is_sound and type(delta) is str and is_base64(delta):
        texts.missed.append((stem,))
    elif type(delta) is str and delta:
        texts.pieces.append(Text(key, (name,), delta, "json" if stem.endswith("arguments") else "text"))
    else:
        _walk(delta, (name,), key, texts, in_pieces=True)
    if document.get(LOGPROBS):
        _read_tokens(document, (), key, texts, in_pieces=True)
    _read_others(document, name, texts)


def _walk(value: Any, path: Path, key: Key, texts: Texts, *, in_pieces: bool = False) -> None:
    """Find the texts below `path`, in order. `in_pieces`: they continue channels, except those that are complete.

    Paths are made for texts alone: for each of a million lists, a hundred deep, they took ten seconds.
    """
    if type(value) is str:
        _read_text(value, path, key, texts, in_pieces)
        return
    steps, keys, open_members = [*path], [*key], [_members(value)]
    if type(value) is dict:
        _read_beside(value, path, key, texts, in_pieces=in_pieces)
    while open_members:
        for step, key_step, member in open_members[-1]:
            if type(member) is str:
                _read_text(member, (*steps, step), (*keys, key_step), texts, in_pieces)
            elif type(member) is dict or type(member) is list:
                steps.append(step)
                keys.append(key_step)
                open_members.append(_members(member))
                if type(member) is dict:
                    _read_beside(member, steps, keys, texts, in_pieces=in_pieces)
                break
        else:
            open_members.pop()
            if open_members:
                steps.pop()
                keys.pop()


def _read_beside(value: dict[str, Any], path: Steps, key: Steps, texts: Texts, *, in_pieces: bool) -> None:
    """Read what an object says in other ways than by its members' texts."""
    texts.names += telling(value)
    if LOGPROBS in value:
        _read_tokens(value, path, key, texts, in_pieces=in_pieces)


def _read_tokens(value: dict[str, Any], path: Steps, key: Steps, texts: Texts, *, in_pieces: bool) -> None:
    """Read log probabilities unless they repeat a text that stands in the same object or right below it."""
    text = spelled(value[LOGPROBS])
    below = [member for inner in value.values() if type(inner) is dict for member in inner.values()]
    if not text or any(type(said) is str and text in said for said in (*value.values(), *below)):
        return
    if in_pieces:
        texts.pieces.append(Text((*key, LOGPROBS), (*path, LOGPROBS), text, "text"))
    else:
        texts.wholes.append(Whole((*path, LOGPROBS), text, "text"))


def _members(value: Any) -> Iterator[tuple[str | int, str | int, Any]]:
    """Yield what may contain text in an object or a list: its step in paths and in keys, and itself."""
    if type(value) is dict:
        unread = left_out(value)
        for name, member in value.items():
            if member and name not in _LABELS and name not in unread:
                yield name, name, member
    elif type(value) is list and (type(value[0] if value else None) not in _NUMBERS or not _are_numbers(value)):
        for place, member in enumerate(value):
            if member:
                yield place, _index(member, place), member


def _are_numbers(values: list[Any]) -> bool:
    """Tell, a piece at a time, whether a list has nothing but numbers, as an embedding or token ids."""
    return all(_NUMBERS.issuperset(map(type, values[at : at + _PIECE])) for at in range(0, len(values), _PIECE))


def _read_text(text: str, path: Path, key: Key, texts: Texts, in_pieces: bool) -> None:
    name = next((step for step in reversed(path) if type(step) is str), "")
    kind: TextKind = "json" if name in _DOCUMENTS else "text"
    if not text:
        return
    if is_media(path, name, text):
        texts.missed.append(path)
    elif in_pieces and name == CALLED and path[-2] in _CALLABLE:
        texts.pieces.append(Text(key, path, text, kind))
        texts.ends.append(key)
    elif in_pieces and name not in _ATOMS:
        texts.pieces.append(Text(key, path, text, kind))
    else:
        texts.wholes.append(Whole(path, text, kind))


def _index(item: Any, place: int) -> int:
    index = item.get("index") if type(item) is dict else None
    return index if type(index) is int else place
