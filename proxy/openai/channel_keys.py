"""Which channel an event continues, and which ones it ends, by the ids and indexes in it.

| event                       | channel, or what all channels that end begin with |
|-----------------------------|---------------------------------------------------|
| `<stem>.delta`              | response, output, part, stem                      |
| `<stem>.done`               | the same                                          |
| `..part.done`               | response, output, part                            |
| `..output_item.done`        | response, output                                  |
| `response.completed`, ...   | response; all of them outside of a session        |
| `content_block_delta, _stop`| block                                             |
| `message_stop`              | all                                               |

Rule of the file: ids and indexes may be missing or of the wrong type; a key has those that are there.
Source: OpenAI API reference: responses streaming, realtime server events; Anthropic: streaming messages.
"""

from collections.abc import Mapping
from typing import Any, Final

Path = tuple[str | int, ...]
"""Keys and indexes from the document's root."""
Key = tuple[str | int, ...]
"""Identifies a channel; a prefix of it identifies all channels of a choice, an output or a part."""

ALL: Final[Key] = ()
_STOPS: Final = (".done", ".completed", ".failed", ".incomplete", ".cancelled")


def part_of(document: Mapping[str, Any]) -> Key:
    """Return the part of an output that an event is about; the output if it names no part."""
    for name, part in (("content_index", "content"), ("summary_index", "summary")):
        if type(value := document.get(name)) is int:
            return (*_output_of(document), part, value)
    return _output_of(document)


def block_of(document: Mapping[str, Any]) -> Key:
    """Return the content block that an event is about."""
    index = document.get("index")
    return ("block", index if type(index) is int else 0)


def ended_by(kind: str, document: Mapping[str, Any]) -> Key | None:
    """Return what the keys of the channels begin with that an event ends; `None` if it ends none. `kind`: its type."""
    if kind == "content_block_stop":
        return block_of(document)
    if kind == "message_stop":
        return ALL
    if not kind.endswith(_STOPS):
        return None
    stem = kind[: kind.rindex(".")]
    if stem in ("response", "transcript.text"):
        return _response_of(document)
    if stem.endswith("output_item"):
        return _output_of(document)
    part = part_of(document)
    return part if stem.endswith("_part") else (*part, stem)


def _response_of(document: Mapping[str, Any]) -> Key:
    """Return one of a session's responses; what no session is has only one."""
    found = document.get("response_id")
    if type(found) is not str and type(response := document.get("response")) is dict:
        found = response.get("id") if response.get("object") == "realtime.response" else None
    return ("response", found) if type(found) is str else ALL


def _output_of(document: Mapping[str, Any]) -> Key:
    for name in ("output_index", "item_id"):
        if type(value := document.get(name)) is int or type(value) is str:
            return (*_response_of(document), "output", value)
    return (*_response_of(document), "output")
