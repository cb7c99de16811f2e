"""Where text stands in a JSON document, and how it is changed there.

Every decoded string is text, whatever the member is called and however deep it lies: tool definitions, results,
arguments, metadata, keys of objects. So an endpoint that nobody has heard of is scanned like any other.

A place is a tuple of keys and indexes; `OfKey` at its end means the key itself. `name` writes it as errors do:
`messages[2].content`. What a member is called is context: `{"password": "..."}` reads `password": "...`, as it would in
a file; only names that every request has are left out, as they say nothing.

Left out are data URLs of media: base64 has no text, and a quarter of a gigabyte of it would be scanned for nothing.
They are named instead (`media`).

Cost: O(strings), about 0.1 microseconds each; places are only made where something was found.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


class OfKey(NamedTuple):
    """The last step to a key itself."""

    key: str


Place = tuple[str | int | OfKey, ...]

PLAIN: Final = frozenset(
    "arguments audio call_id content data description detail effort file_data filename finish_reason format id image "
    "image_url input input_audio input_image input_text instructions item_id messages mode model name object output "
    "output_text parameters prompt properties reasoning refusal required response_format role schema status stop "
    "stream strict summary text tool_call_id tool_calls tool_choice tools type url user voice".split()
)
"""Names of members that carry no meaning for what stands in them."""
_TEXTUAL: Final = re.compile(r"data:(?:text/|application/(?:json|xml|x-yaml|yaml|javascript))")
_SHOWN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


_MARKS: Final = frozenset("d{[")
"""With these begin data URLs and JSON."""


@dataclass(slots=True)
class Gathered:
    """All text of a document, in no particular order."""

    texts: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    """Those of the strings that may be JSON of which the escapes hide something."""
    has_media: bool = False


def gather(document: Any) -> Gathered:
    """Return every string in `document`, keys and what members are called included."""
    gathered = Gathered()
    texts, stack = gathered.texts, [document]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is dict:
            for key, value in item.items():
                if key in PLAIN:
                    stack.append(value)
                elif type(value) is not str:
                    texts.append(key)
                    stack.append(value)
                elif value[:1] in _MARKS and _is_left_out(value, gathered):
                    texts.append(key)
                else:
                    texts.append(f"{lead(key)}{value}")
        elif kind is list:
            stack += item
        elif kind is str and not (item[:1] in _MARKS and _is_left_out(item, gathered)):
            texts.append(item)
    return gathered


def _is_left_out(text: str, gathered: Gathered) -> bool:
    """Note what is special about a text; tell whether it is media."""
    if text[0] != "d":
        if "\\" in text:
            gathered.nested.append(text)
        return False
    left_out = is_media(text)
    gathered.has_media |= left_out
    return left_out


def located(document: Any) -> Iterator[tuple[Place, str, str]]:
    """Yield every string but media, with its place and what its member is called (empty for none), in order.

    Keys come as texts of their own, before what stands under them.
    """
    stack: list[tuple[Place, str, Any]] = [((), "", document)]
    while stack:
        place, called, item = stack.pop()
        kind = type(item)
        if kind is str:
            if (place and type(place[-1]) is OfKey) or not is_media(item):
                yield place, called, item
        elif kind is dict:
            for key, value in reversed(item.items()):
                stack.append(((*place, key), "" if key in PLAIN else key, value))
                if key not in PLAIN:
                    stack.append(((*place, OfKey(key)), "", key))
        elif kind is list:
            stack += [((*place, index), "", item[index]) for index in range(len(item) - 1, -1, -1)]


def media(document: Any) -> Iterator[Place]:
    """Yield the places of what `located` leaves out."""
    stack: list[tuple[Place, Any]] = [((), document)]
    while stack:
        place, item = stack.pop()
        kind = type(item)
        if kind is str:
            if is_media(item):
                yield place
        elif kind is dict:
            stack += [((*place, key), value) for key, value in reversed(item.items())]
        elif kind is list:
            stack += [((*place, index), item[index]) for index in range(len(item) - 1, -1, -1)]


def changed(document: Any, changes: Mapping[Place, str]) -> Any:
    """Return `document` with the strings and keys at the places of `changes` replaced; the rest is shared.

    Cost: O(size of the objects and lists on the way), whatever the number of changes. Recursion is as deep as places.
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
    """Write a place as errors name it: `messages[2].content[0].text`; the document itself is an empty text.

    A key that is no plain name is written as `*`, since a client chose it.
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
    """Return how a member's name leads to its text."""
    return f'{called}": "' if called else ""


def is_media(text: str) -> bool:
    """Tell whether `text` is a data URL in which no text can be read."""
    return text.startswith("data:") and ";base64," in text[:256] and not _TEXTUAL.match(text)


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
    """Return a name for a key that no other key of the object has: two secrets may have one mask."""
    taken, chosen, number = set(renamed.values()), wanted, 1
    while chosen in item or chosen in taken:
        number += 1
        chosen = f"{wanted}{number}"
    return chosen
