"""Facts that every answer may contain, complete or as an event: id, model, conversation, usage, error, end.

Rule of the file: anything may be missing or of the wrong type; nothing raises. Of an error only the code is recorded,
and only if it looks like one: a message may quote a prompt.

Source: OpenAI API reference; openapi.yaml `ErrorResponse`, `ResponseErrorCode`.
"""

import re
from collections.abc import Mapping
from typing import Any

from proxy.exchange import Dialect, Meter, Usage
from proxy.openai.choices import note_finish, output_item_bytes, read_output_item
from proxy.openai.documents import printable
from proxy.openai.usage import add_usage, is_believable, later_usage, read_seconds, read_usage

_DETAILS = ("tokens_details", "token_details")
_LONGEST_TIER = 32
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read_identity(document: Mapping[str, Any], meter: Meter) -> None:
    """Record the answer's own id and model, each once."""
    if meter.response_id is None:
        meter.response_id = printable(document.get("id")) or None
    if meter.response_model is None:
        meter.response_model = printable(document.get("model")) or None
    note_tier(document, meter)


def note_tier(document: Mapping[str, Any], meter: Meter) -> None:
    """Record the service tier of an answer; the latest counts, as the first event of a response repeats the request."""
    tier = document.get("service_tier")
    if tier is not None and len(told := printable(tier)) <= _LONGEST_TIER:
        meter.service_tier = told or None


def note_usage(document: Mapping[str, Any], meter: Meter) -> None:
    """Record the `usage` of a document if it is plausible; the latest counts (`usage.later_usage`)."""
    value = document.get("usage")
    if value is not None:
        if (usage := read_usage(value)) is not None:
            meter.usage = usage if meter.usage is None else later_usage(meter.usage, usage, value)
        note_tier(document, meter)


def note_media_usage(document: Mapping[str, Any], dialect: Dialect, meter: Meter) -> None:
    """Record the `usage` of images or transcriptions. What lacks details is of the kind that the endpoint is about."""
    note_usage(document, meter)
    if (usage := meter.usage) is None or document.get("usage") is None:
        return
    if dialect == "images" and not _has_details(document, "output"):
        usage.image_output_tokens = usage.output_tokens
    elif dialect == "audio" and not _has_details(document, "input"):
        usage.audio_input_tokens = usage.input_tokens


def add_to_usage(document: Mapping[str, Any], model: str | None, meter: Meter) -> bool:
    """Add the `usage` of one of several answers on a connection, made by `model`; False without believable figures."""
    usage = read_usage(document.get("usage"))
    if usage is None or not is_believable(usage, None):
        return False
    meter.usage = add_usage(meter.usage, usage)
    meter.largest_input_tokens = max(meter.largest_input_tokens, usage.input_tokens)
    meter.usage_by_model[model] = add_usage(meter.usage_by_model.get(model), usage)
    return True


def _has_details(document: Mapping[str, Any], side: str) -> bool:
    """Tell whether the usage of a document says what its `input` or `output` consists of."""
    usage = document.get("usage")
    return type(usage) is dict and any(type(usage.get(f"{side}_{name}")) is dict for name in _DETAILS)


def note_error(error: Any, meter: Meter) -> None:
    """Record the code or type of an error object."""
    found = error if type(error) is dict else {}
    for name in ("code", "type"):
        value = found.get(name)
        if type(value) is int:
            value = str(value)
        if type(value) is str and _CODE.fullmatch(value):
            meter.stream_error = value
            return
    meter.stream_error = "error"


def read_response(response: Mapping[str, Any], meter: Meter) -> None:
    """Read a finished response object, except its usage and output."""
    read_identity(response, meter)
    conversation = response.get("conversation")
    if type(conversation) is dict:
        meter.conversation = printable(conversation.get("id")) or meter.conversation
    details = response.get("incomplete_details")
    reason = printable(details.get("reason")) if type(details) is dict else ""
    note_finish(meter, reason or printable(response.get("status")))
    if response.get("error"):
        note_error(response["error"], meter)


def read_output(response: Mapping[str, Any], meter: Meter) -> None:
    """Count the output of a complete response object; in a stream it has been counted from events."""
    output = response.get("output")
    if type(output) is list:
        for item in output:
            meter.output_text_bytes += output_item_bytes(item)
            read_output_item(item, meter)


def read_unit_usage(document: Mapping[str, Any], dialect: Dialect, meter: Meter) -> None:
    """Record billed units other than tokens: images produced, seconds transcribed."""
    if dialect == "audio":
        meter.usage = read_seconds(document.get("duration"))
    elif dialect == "images" and type(document.get("data")) is list:
        meter.usage = Usage(images=len(document["data"]))
