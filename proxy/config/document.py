"""The two generated documents of the schema: the commented YAML file and the JSON schema.

Tests compare the files in `config/` with what is generated here, so they cannot become outdated.

Rule of the file: text only, no I/O; the meaning of a key is written once, in the schema's descriptions.

Source: JSON Schema draft 2020-12; yaml-language-server's `$schema` comment.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from proxy.config.keys import KEYS, Key
from proxy.config.problems import KeyPath
from proxy.config.schema import Config

_WIDTH: Final = 116
_INDENT: Final = "  "
_HEAD: Final = """\
# yaml-language-server: $schema=sidegate.schema.json
#
# Every key of Sidegate with its default. Copy what you change; everything is optional.
# `sidegate config check --config FILE` finds mistakes, `sidegate config show --config FILE` shows what is in effect.
# Flags win over the environment, the environment over this file. Every key can be set in the environment as
# SIDEGATE__SECTION__KEY, for example SIDEGATE__TIMEOUTS__GAP_S=30; the usual ones have short names as well.
# Secrets: ${NAME} takes the value of an environment variable, file:/path the content of a file.
"""
_SIZES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def yaml_document() -> str:
    """Return a configuration file with every key, its default, its unit and its meaning."""
    lines: list[str] = []
    opened: set[KeyPath] = set()
    before: KeyPath = ()
    for path, key in KEYS.items():
        if len(path) < len(before):
            lines.append("")
        before = path
        for depth in range(1, len(path)):
            section = path[:depth]
            if section not in opened:
                opened.add(section)
                lines += ["", *_section_lines(section)] if depth == 1 else _section_lines(section)
        lines += _key_lines(key)
    return _HEAD + "\n" + "\n".join(lines) + "\n"


def json_schema() -> str:
    """Return the JSON schema of a configuration file. No key is required there: the defaults stand below each."""
    schema: dict[str, Any] = Config.model_json_schema()
    _tidy(schema)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sidegate configuration"}
    return json.dumps({**schema, **head}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def yaml_value(value: object) -> str:
    """Return a default as YAML on one line. Words are quoted if YAML 1.1 would read something else."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return f"{value:g}" if value < 1_000_000 else str(value)
        case Mapping():
            return "{" + ", ".join(f"{name}: {yaml_value(item)}" for name, item in value.items()) + "}"
        case tuple() | list():
            return "[" + ", ".join(yaml_value(item) for item in value) + "]"
        case _:
            is_ambiguous = value in ("off", "on", "yes", "no") or (type(value) is str and "," in value)
            return json.dumps(value) if is_ambiguous else str(value)


def _section_lines(section: KeyPath) -> Iterator[str]:
    indent = _INDENT * (len(section) - 1)
    if len(section) == 1:
        doc = Config.model_fields[section[0]].annotation.__doc__ or ""
        yield from _comment(doc.strip(), indent)
    else:
        yield from _comment(_description_of(section), indent)
    yield f"{indent}{section[-1]}:"


def _description_of(section: KeyPath) -> str:
    info = Config.model_fields[section[0]]
    for name in section[1:]:
        assert info.annotation is not None
        info = info.annotation.model_fields[name]
    return info.description or ""


def _key_lines(key: Key) -> Iterator[str]:
    indent = _INDENT * (len(key.path) - 1)
    yield from _comment(key.description, indent)
    note = _note(key)
    line = f"{indent}{key.path[-1]}: {yaml_value(key.default)}"
    if len(line) + len(note) > _WIDTH:
        yield from _comment(note, indent)
        note = ""
    yield line + (f"  # {note}" if note else "")


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH - len(indent), break_on_hyphens=False):
        yield f"{indent}# {line}"


def _note(key: Key) -> str:
    """Return the unit of a number, or the choices of a word."""
    if key.choices:
        return " | ".join(key.choices)
    if key.unit == "bytes":
        return next((f"{key.default / size:g} {unit}" for size, unit in _SIZES if key.default >= size), "bytes")
    return key.unit


def _tidy(node: Any) -> None:
    """Remove what would mislead: no key is required in a file, and a title made from the key's name adds nothing."""
    if isinstance(node, dict):
        for name, kind in (("required", list), ("title", str)):
            if isinstance(node.get(name), kind):
                del node[name]
        for inner in node.values():
            _tidy(inner)
    elif isinstance(node, list):
        for inner in node:
            _tidy(inner)
