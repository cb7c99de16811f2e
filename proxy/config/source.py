"""Read a YAML file into settings, each with its line, and every mistake with its line.

The document is composed into nodes and then walked along the schema, so an unknown part is reported and never entered:
neither an alias that contains itself nor a bomb of nested aliases is followed.

Rules of the file: scalars are those of YAML 1.2's core schema, so `content: off` is the word off and not false, as the
editors that know our JSON schema read it; numbers with a point stay exact decimals; a key given twice is a mistake; no
value is quoted in a message (libyaml's own messages do not quote any either).

Source: YAML 1.2.2, chapter 10.3 "Core Schema"; PyYAML documentation, "Composer".
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from proxy.config.files import read_regular
from proxy.config.guesses import meant
from proxy.config.keys import KEYS, SECTIONS, Key, children
from proxy.config.names import MOST_GUESSED, did_you_mean, shown
from proxy.config.problems import KeyPath, Layer, Origin, Setting

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,40}")
_DECIMAL: Final = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_CONTROL: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CORE_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in "str int float bool null timestamp merge value map seq".split()
)
_DEEPEST: Final = 32
_TOO_DEEP: Final = "is nested more deeply than any key"
_ENTRY_DEPTH: Final = 2
"""Levels of mappings inside an entry of a list."""
_MAX_FILE_BYTES: Final = 4_194_304


def scalar(text: str) -> Any:
    """Return what a plain (unquoted) scalar means: None, bool, int, Decimal, or the text itself."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    return text


def read_file(path: Path) -> Layer:
    """Read one configuration file. Mistakes are in the layer; nothing is raised."""
    layer = Layer()
    origin = Origin("file", str(path))
    try:
        data = read_regular(path, _MAX_FILE_BYTES)
    except OSError as error:
        layer.complain(origin, (), f"cannot be read: {error.strerror or type(error).__name__}")
        return layer
    if len(data) > _MAX_FILE_BYTES:
        layer.complain(origin, (), f"is larger than {_MAX_FILE_BYTES} bytes; this is not a configuration file")
        return layer
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        layer.complain(Origin("file", str(path), line), (), "is not UTF-8 text")
        return layer
    read_text(text, str(path), layer)
    return layer


def read_text(text: str, name: str, layer: Layer) -> None:
    """Read a document into `layer`. `name`: what messages call it."""
    node = _compose(text, name, layer)
    if node is None or _is_empty(node):
        return
    if not isinstance(node, yaml.MappingNode):
        layer.complain(_at(name, node), (), "the document must be a mapping of sections and keys")
        return
    _read_section(node, (), name, layer)


def read_mapping(text: str, key: Key, origin: Origin, layer: Layer) -> None:
    """Read a mapping given as one line of YAML or JSON (an environment variable) as the value of `key`."""
    parsed = Layer()
    node = _compose(text, "", parsed)
    if node is not None:
        _read_value(node, key, "", parsed)
    for problem in parsed.problems:
        layer.complain(origin, (), problem.text)
    for path, setting in parsed.settings.items():
        layer.settings[path] = Setting(setting.value, origin)


def _compose(text: str, name: str, layer: Layer) -> yaml.Node | None:
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        layer.complain(Origin("file", name, line), (), "holds a control character that YAML does not allow")
        return None
    try:
        if line := _too_deep(text):
            layer.complain(Origin("file", name, line), (), _TOO_DEEP)
            return None
        node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        # libyaml has a limit of its own from 0.2.6 on, and meets it while it reads ahead of our count.
        text = _TOO_DEEP if "nesting depth" in what else f"is not valid YAML: {what}"
        layer.complain(Origin("file", name, mark.line + 1 if mark else 0), (), text)
    return None


def _too_deep(text: str) -> int:
    """Return the line where a document gets too deep, else 0. Composing it would exhaust the C stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            return event.start_mark.line + 1 if event.start_mark else 1
    return 0


def _at(name: str, node: yaml.Node) -> Origin:
    return Origin("file", name, node.start_mark.line + 1)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in _NULL


def _entries(
    node: yaml.MappingNode, path: KeyPath, name: str, layer: Layer
) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield name, key node and value node of each entry, reporting odd and repeated keys."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            layer.complain(_at(name, key), path, "a key must be a plain word")
            continue
        if key.value in seen:
            first = seen[key.value]
            layer.complain(_at(name, key), (*path, shown(key.value)), f"is given twice; first in line {first}")
            continue
        seen[key.value] = key.start_mark.line + 1
        yield key.value, key, value


def _read_section(node: yaml.MappingNode, above: KeyPath, name: str, layer: Layer) -> None:
    for word, key, value in _entries(node, above, name, layer):
        path = (*above, word)
        if path in KEYS:
            layer.lines[path] = key.start_mark.line + 1
            _read_value(value, KEYS[path], name, layer)
        elif path not in SECTIONS:
            text = unknown_key(above, word) if len(layer.problems) < MOST_GUESSED else "unknown key"
            layer.complain(_at(name, key), (*above, shown(word)), text)
        elif isinstance(value, yaml.MappingNode):
            _read_section(value, path, name, layer)
        elif not _is_empty(value):
            layer.complain(_at(name, key), path, f"is a section with the keys {', '.join(children(path))}")


def unknown_key(above: KeyPath, word: str) -> str:
    """Return the message for a name that does not exist below `above`, with the nearest one that does.

    A neighbour is preferred; a better match elsewhere in the document is shown with its full path.
    """
    if "." in word:
        return "unknown key; write sections as nested keys, not with dots"
    names = [path[-1] if path[:-1] == above else ".".join(path) for path in meant(above, word)]
    return f"unknown key{did_you_mean(' or '.join(names))}"


def _read_value(node: yaml.Node, key: Key, name: str, layer: Layer) -> None:
    origin = Origin("file", name, layer.lines.get(key.path, node.start_mark.line + 1))
    if key.kind in ("mapping", "list") and _is_empty(node):
        layer.settings[key.path] = Setting({} if key.kind == "mapping" else [], origin)
        return
    before = len(layer.problems)
    read = _plain_list if key.kind == "list" else _plain
    value = read(node, key.path, key.depth, name, layer)
    if len(layer.problems) == before:
        layer.settings[key.path] = Setting(value, origin)


def _plain_list(node: yaml.Node, path: KeyPath, _depth: int, name: str, layer: Layer) -> Any:
    """Return a list of sections as data; what may stand in them is the schema's business."""
    if not isinstance(node, yaml.SequenceNode):
        layer.complain(
            _at(name, node), path, "must be a list: [one, another], or one entry per line, each begun with a dash"
        )
        return None
    result = []
    for number, entry in enumerate(node.value):
        inner = (*path, str(number))
        layer.lines[inner] = entry.start_mark.line + 1
        result.append(_plain_entry(entry, inner, name, layer))
    return result


def _plain_entry(node: yaml.Node, path: KeyPath, name: str, layer: Layer) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return _plain(node, path, 0, name, layer)
    result: dict[str, Any] = {}
    for word, key, value in _entries(node, path, name, layer):
        inner = (*path, shown(word))
        layer.lines[inner] = key.start_mark.line + 1
        read = _plain_list if isinstance(value, yaml.SequenceNode) else _plain
        result[word] = read(value, inner, _ENTRY_DEPTH, name, layer)
    return result


def _plain(node: yaml.Node, path: KeyPath, depth: int, name: str, layer: Layer) -> Any:
    """Return a node as data. `depth`: how many levels of mappings the schema allows here."""
    if node.tag not in _CORE_TAGS:
        layer.complain(_at(name, node), path, "tags (!...) are not supported")
        return None
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else scalar(node.value)
    if not isinstance(node, yaml.MappingNode) or depth < 1:
        what = "a mapping of names to values" if depth else "a single value"
        layer.complain(_at(name, node), path, f"must be {what}")
        return None
    result: dict[str, Any] = {}
    for word, key, value in _entries(node, path, name, layer):
        inner = (*path, shown(word))
        layer.lines[inner] = key.start_mark.line + 1
        result[word] = _plain(value, inner, depth - 1, name, layer)
    return result
