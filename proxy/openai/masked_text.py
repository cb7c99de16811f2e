"""Rewrites the texts of an event or an answer in which something was masked.

Rule of the file: members that repeat a masked text token by token are removed with it; every other byte is unchanged.
An event that is created only to carry the rest of a text contains nothing else, so that nothing is added up twice.

Source: OpenAI API reference, `logprobs`; llama.cpp and vLLM for the other names of tokens.
"""

from collections.abc import Mapping
from typing import Any

from proxy.openai.channel_keys import Path
from proxy.openai.documents import dump_exact, load_exact
from proxy.openai.json_edit import edited, written
from proxy.openai.token_texts import REPEATS, emptied


def with_texts(data: bytes, document: Any, texts: Mapping[Path, str]) -> bytes:
    """Return `data` with other texts at some paths. `document`: decoded `data`."""
    values: dict[Path, bytes] = {}
    for path, text in texts.items():
        values |= repeats(document, path)
        value = _at(document, path)
        values[path] = written(text, data) if type(value) is str else emptied(path[-1], value)
    return edited(data, values)


def with_names(data: bytes, names: Mapping[str, str]) -> bytes:
    """Return `data` with other names of members, equal as a JSON value but for those; `null` if it is too deep."""
    try:
        return dump_exact(load_exact(data, lambda members: {names.get(name, name): value for name, value in members}))
    except ValueError:
        return b"null"


def repeats(document: Any, path: Path) -> dict[Path, bytes]:
    """Return the paths that repeat the text at `path` token by token, and their replacements."""
    found: dict[Path, bytes] = {}
    value = document
    for depth, step in enumerate(path):
        if type(value) is dict:
            for name in REPEATS:
                member = value.get(name)
                if member and name != step and type(member) in (dict, list):
                    found[*path[:depth], name] = emptied(name, member)
        value = value[step]
    return found


def alone(document: Any, path: Path, text: str) -> tuple[Any, Path]:
    """Return an event like `document` that contains only `text`, and its path.

    Identity is preserved: labels of the event, indexes on the path. Everything that a client would add up is removed.
    """
    said: Any = text
    for depth in range(len(path) - 1, -1, -1):
        around, step = _at(document, path[:depth]), path[depth]
        said = [said] if type(step) is int else {**_identity(around, is_root=depth == 0), step: said}
    return said, tuple(0 if type(step) is int else step for step in path)


def _identity(around: dict[str, Any], *, is_root: bool) -> dict[str, Any]:
    if is_root:
        return {name: value for name, value in around.items() if type(value) not in (dict, list) and name != "usage"}
    kept = {name: value for name, value in around.items() if value is None or type(value) is int or name == "type"}
    return {**kept, "finish_reason": None} if "finish_reason" in around else kept


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document
