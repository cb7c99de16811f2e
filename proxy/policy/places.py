"""Where text occurs in a JSON document, and how it is replaced there.

Every decoded string is text, whatever its member's name or depth: tool definitions, results, arguments, metadata, keys
of objects. So an unknown endpoint is scanned like any other.

A place is a tuple of keys and indexes, with `OfKey` at the end for a key itself. `name` writes it as errors do:
`messages[2].content`. A member's name is context: `{"password": "..."}` is scanned as `password": "...`, like in a
file; names that every request has are omitted, as they mean nothing.

Data URLs of media are skipped: base64 contains no text, and a quarter of a gigabyte of it would be scanned in vain.
They are reported instead (`media`).

Cost: O(strings), about 0.1 microseconds each; places are built only for findings.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from proxy.event_loop.fair_threads import give_way
from proxy.openai.binary import encodes_text, is_base64, is_media


class OfKey(NamedTuple):
    """Last step of a place: the key itself."""

    key: str


Place = tuple[str | int | OfKey, ...]

PLAIN: Final = frozenset(
    "arguments audio call_id content data description detail effort filename finish_reason format id image "
    "image_url input input_audio input_image input_text instructions item_id messages mode model name object output "
    "output_text parameters prompt properties reasoning refusal required response_format role schema status stop "
    "stream strict summary text tool_call_id tool_calls tool_choice tools type url user voice".split()
)
"""Member names that say nothing about their text."""
_HEAD: Final = 64
_SHOWN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


_AT_ONCE: Final = 1000
_FILE: Final = "file_data"
"""The member that holds a whole file."""
_MARKS: Final = frozenset("d{[")
"""First characters of data URLs and JSON."""


@dataclass(slots=True)
class Gathered:
    """All text of a document, unordered."""

    texts: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    """Strings that may be JSON and contain escapes, which could hide something."""
    has_media: bool = False
    has_files: bool = False
    """Some member holds a file, which may be binary: see `is_binary_file`."""


def gather(document: Any) -> Gathered:
    """Return every string in `document`, including keys and the members' names as context."""
    gathered = Gathered()
    texts, stack, looked = gathered.texts, [document], 0
    while stack:
        item = stack.pop()
        looked += 1
        if looked % _AT_ONCE == 0:
            give_way()
        kind = type(item)
        if kind is dict:
            _gather_members(item, gathered, stack)
        elif kind is list:
            stack += item
        elif kind is str and not (item[:1] in _MARKS and _is_left_out(item, gathered)):
            texts.append(item)
    return gathered


def _gather_members(members: dict[str, Any], gathered: Gathered, stack: list[Any]) -> None:
    """Record the texts of an object's members; put what may contain more on the stack."""
    texts = gathered.texts
    for key, value in members.items():
        kind = type(value)
        if kind is str and not (value[:1] in _MARKS and _is_left_out(value, gathered)):
            if key in PLAIN:
                texts.append(value)
            else:
                texts.append(f"{lead(key)}{value}")
                gathered.has_files |= key == _FILE
            continue
        if key not in PLAIN:
            texts.append(key)
        if kind is dict or kind is list:  # numbers, true, false and null have no text
            stack.append(value)


def _is_left_out(text: str, gathered: Gathered) -> bool:
    """Record if a text may be nested JSON; tell whether it is media, to be skipped."""
    if text[0] != "d":
        if "\\" in text:
            gathered.nested.append(text)
        return False
    left_out = is_media(text)
    gathered.has_media |= left_out
    return left_out


def located(document: Any) -> Iterator[tuple[Place, str, str]]:
    """Yield every string except media, with its place and its member's name if that is context, in order.

    Keys are texts of their own and precede their values.
    """
    for place, called, text in _strings(document):
        if (place and type(place[-1]) is OfKey) or not is_media(text):
            yield place, called, text


def media(document: Any) -> Iterator[Place]:
    """Yield the places of the media that `located` skips."""
    for place, _, text in _strings(document):
        if is_media(text) and not (place and type(place[-1]) is OfKey):
            yield place


def is_binary_file(called: str, text: str) -> bool:
    """Tell whether a member called so holds a file of its own in base64, and no text; files in data URLs are media."""
    return called == _FILE and len(text) >= _HEAD and is_base64(text) and not encodes_text(text[:_HEAD].encode())


def _strings(document: Any) -> Iterator[tuple[Place, str, str]]:
    """Yield every string, keys as well, with its place and its member's name if that is context, in order."""
    stack: list[tuple[Place, str, Any]] = [((), "", document)]
    while stack:
        place, called, item = stack.pop()
        kind = type(item)
        if kind is str:
            yield place, called, item
        elif kind is dict:
            for key, value in reversed(item.items()):
                stack.append(((*place, key), "" if key in PLAIN else key, value))
                if key not in PLAIN:
                    stack.append(((*place, OfKey(key)), "", key))
        elif kind is list:
            stack += [((*place, index), "", item[index]) for index in range(len(item) - 1, -1, -1)]


def changed(document: Any, changes: Mapping[Place, str]) -> Any:
    """Return `document` with the strings and keys at the places of `changes` replaced; the rest is shared.

    Cost: O(size of the containers on the path), whatever the number of changes. Recursion is as deep as places.
    """
    tree: dict[Any, Any] = {}
    for place, text in changes.items():
        if not place:
            return text
        node = tree
        for step in place[:-1]:
            node = node.setdefault(step, {})
        node[place[-1]] = text
    return _changed(document, tree) if tree else document


def name(place: Place) -> str:
    """Return a place as errors name it: `messages[2].content[0].text`; empty for the document itself.

    Keys other than plain names are written as `*`, since a client chose them.
    """
    written = ""
    for step in place:
        if type(step) is int:
            written += f"[{step}]"
        elif type(step) is str:
            shown = step if _SHOWN.fullmatch(step) else "*"
            written += f".{shown}" if written else shown
    return written


def lead(called: str) -> str:
    """Return the context that a member's name adds before its text."""
    return f'{called}": "' if called else ""


def _changed(item: Any, tree: Mapping[Any, Any]) -> Any:
    copy = item.copy()
    renamed: dict[str, str] = {}
    for step, below in tree.items():
        if type(step) is OfKey:
            renamed[step.key] = _free(below, item, renamed)
        else:
            copy[step] = below if type(below) is str else _changed(item[step], below)
    return {renamed.get(key, key): value for key, value in copy.items()} if renamed else copy


def _free(wanted: str, item: Mapping[str, Any], renamed: Mapping[str, str]) -> str:
    """Return a name for a key that is unique in the object: two secrets may have the same mask."""
    taken, chosen, number = set(renamed.values()), wanted, 1
    while chosen in item or chosen in taken:
        number += 1
        chosen = f"{wanted}{number}"
    return chosen
