"""Reads a provider's complete answer into the attempt's `Meter`.

A buffered body is decoded; of a larger one only the two ends are inspected: id and model are near the beginning, usage
near the end (embeddings, images in base64).

Rule of the file: a body may be anything; nothing raises and only facts are stored.
Source: OpenAI API reference, the answer object of each endpoint.
"""

import re
from typing import Any

from proxy.exchange import Dialect, Meter
from proxy.openai import json_steps
from proxy.openai.choices import ChoiceReader, text_bytes
from proxy.openai.documents import dump_exact, load_object
from proxy.openai.facts import (
    note_error,
    note_media_usage,
    read_identity,
    read_output,
    read_response,
    read_unit_usage,
)

END_BYTES = 65_536
"""How much of each end `inspect_ends` needs."""

_MEMBER = re.compile(
    rb'[ \t\r\n]*("(?:id|object|created|model|created_at|status|background)"[ \t\r\n]*:[ \t\r\n]*'
    rb'(?:"[^"\\]{0,256}"|-?[0-9]+|true|false|null))[ \t\r\n]*,'
)
_LATE_MEMBER = re.compile(rb'[,{][ \t\r\n]*(?="(?:model|id|usage)"[ \t\r\n]*:)')
_MAX_TRIES = 8


def inspect(dialect: Dialect, body: bytes, meter: Meter) -> None:
    """Read a complete JSON answer; anything else is ignored. Sets `terminated`: it is complete."""
    document = json_steps.read_container(body)
    inspect_document(dialect, document, meter)
    json_steps.let_go(document, body)


def inspect_document(dialect: Dialect, document: Any, meter: Meter) -> None:
    """Read a JSON answer that has been decoded."""
    meter.terminated = True
    if type(document) is not dict:
        return
    if document.get("error"):
        note_error(document["error"], meter)
    read_identity(document, meter)
    if dialect == "none":
        return
    _read_output(document, meter)
    note_media_usage(document, dialect, meter)
    if meter.usage is None:
        read_unit_usage(document, dialect, meter)


def inspect_ends(dialect: Dialect, head: bytes, tail: bytes, meter: Meter) -> None:
    """Read what the first and the last bytes of a complete JSON answer reveal."""
    meter.terminated = True
    early = _early_members(head)
    late = _late_members(tail)
    for document in (early, late):
        read_identity(document, meter)
    if dialect != "none":
        note_media_usage(late, dialect, meter)


def _read_output(document: dict[str, Any], meter: Meter) -> None:
    if "choices" in document:
        ChoiceReader(meter).read(document["choices"])
    elif "output" in document:
        read_response(document, meter)
        read_output(document, meter)
    elif type(parts := document.get("content")) is list and document.get("type") == "message":
        meter.output_text_bytes += text_bytes(parts) + sum(map(_input_bytes, parts))
    else:
        meter.output_text_bytes += text_bytes(document.get("text"))


def _input_bytes(part: Any) -> int:
    """Return the size of the arguments of a tool that a message of Anthropic's API calls, or of its thinking."""
    if type(part) is not dict:
        return 0
    try:
        arguments = len(dump_exact(part["input"])) if part.get("input") else 0
    except ValueError:  # nested too deeply
        arguments = 0
    return text_bytes(part.get("thinking")) + arguments


def _early_members(head: bytes) -> dict[str, Any]:
    """Return the simple members at the beginning, up to the first of another kind."""
    start = head.find(b"{")
    if start < 0 or head[:start].strip():
        return {}
    members = []
    end = start + 1
    while found := _MEMBER.match(head, end):
        members.append(found[1])
        end = found.end()
    return load_object(b"{" + b",".join(members) + b"}") or {}


def _late_members(tail: bytes) -> dict[str, Any]:
    """Return the members at the end, from the first of a known name on.

    What follows a member of the answer itself closes exactly one object, so it parses after a `{` is prepended. After
    nested members there is a surplus `}`, and text cannot contain a quote after a comma.
    """
    starts = [found.end() for found in _LATE_MEMBER.finditer(tail)][-_MAX_TRIES:]
    for start in starts:
        document = load_object(b"{" + tail[start:])
        if document is not None:
            return document
    return {}
