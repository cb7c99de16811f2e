"""Where text stands in a JSON document, and how it is changed there.

Every decoded string is text, whatever the member is called and however deep it lies: tool definitions, results,
arguments, metadata, keys of objects. So an endpoint that nobody has heard of is scanned like any other. Strings that a
client cannot choose freely cost little and hide nothing.

A place is a tuple of keys and indexes; `name` writes it as errors do: `messages[2].content`. A key of an object is text
at the place of its object.

Left out are data URLs of media: base64 has no text, and a quarter of a gigabyte of it would be scanned for nothing.

Cost: O(strings), without recursion, about 0.1 microseconds each; places are only made where something was found.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]

_MEDIA = ("data:image/", "data:audio/", "data:video/")


def texts(document: Any) -> list[str]:
    """Return every string in `document`, keys included, in no particular order."""
    found: list[str] = []
    stack = [document]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str:
            if not _is_media(item):
                found.append(item)
        elif kind is dict:
            found += item
            stack += item.values()
        elif kind is list:
            stack += item
    return found


def located(document: Any) -> Iterator[tuple[Place, str]]:
    """Yield every string that is a value, with its place, in the order of the document."""
    stack: list[tuple[Place, Any]] = [((), document)]
    while stack:
        place, item = stack.pop()
        kind = type(item)
        if kind is str:
            if not _is_media(item):
                yield place, item
        elif kind is dict:
            stack += [((*place, key), value) for key, value in reversed(item.items())]
        elif kind is list:
            stack += [((*place, index), item[index]) for index in range(len(item) - 1, -1, -1)]


def keys(document: Any) -> Iterator[tuple[Place, str]]:
    """Yield every key of an object, with the place of that object."""
    stack: list[tuple[Place, Any]] = [((), document)]
    while stack:
        place, item = stack.pop()
        if type(item) is dict:
            for key, value in item.items():
                yield place, key
                stack.append(((*place, key), value))
        elif type(item) is list:
            stack += [((*place, index), value) for index, value in enumerate(item)]


def changed(document: Any, changes: Mapping[Place, str]) -> Any:
    """Return `document` with the strings at the places of `changes` replaced; what is not concerned is shared."""
    result = document
    for place, text in changes.items():
        result = _replaced(result, place, text)
    return result


def name(place: Place) -> str:
    """Write a place as errors name it: `messages[2].content[0].text`; the document itself is an empty text."""
    written = ""
    for step in place:
        if type(step) is int:
            written += f"[{step}]"
        else:
            written += f".{step}" if written else str(step)
    return written


def _replaced(item: Any, place: Place, text: str) -> Any:
    if not place:
        return text
    step, rest = place[0], place[1:]
    copy = item.copy()
    copy[step] = _replaced(item[step], rest, text)
    return copy


def _is_media(text: str) -> bool:
    return text.startswith("data:") and text.startswith(_MEDIA) and ";base64," in text[:256]
