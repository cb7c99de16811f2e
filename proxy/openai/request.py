"""Parses a request: the facts that routing, accounting and traces need, and the bytes that go upstream.

Only one edit is ever made to a readable body: a stream is asked for its usage (`stream_options.include_usage`), so that
it can be accounted for; `strip_usage` makes the relay remove the extra chunk from the answer.

Failure mode: a body that cannot be read is refused (400) if the operation is known to use JSON. On an unknown path,
invalid JSON passes unread: only the provider can tell whether it is right.

Source: OpenAI API reference: chat completions, responses, completions.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.exchange import Operation, ParsedRequest
from proxy.openai import json_steps
from proxy.openai.documents import printable
from proxy.openai.input_text import MEDIA_PART_BYTES, input_text_bytes
from proxy.openai.json_body import parse_body, unambiguous, with_new_member, with_option
from proxy.openai.multipart import FormFacts
from proxy.openai.pieces import encoded
from proxy.openai.tool_results import tool_results

_OPTIONS = "stream_options"
_USAGE_OPTION = "include_usage"
_ASK_FOR_USAGE = b'"stream_options":{"include_usage":true}'


def parse_json(body: bytes, operation: Operation, *, limits: Limits, force_stream_usage: bool) -> ParsedRequest:
    """Parse a JSON body. The caller checks the Content-Type.

    `force_stream_usage`: the upstream's setting; relevant only to operations with that option.
    Raises:
        InvalidRequest: not JSON, not an object, or beyond a limit.
    """
    try:
        document = parse_body(body, limits)
    except InvalidRequest:
        if operation.body == "json":
            raise
        return _unread(body)
    if type(document) is not dict:
        if operation.body == "json":
            raise InvalidRequest("The JSON body of your request must be an object.", code="invalid_json")
        return _unread(body)
    forwarded = unambiguous(body, document)
    strip_usage = False
    stream = document.get("stream") is True
    if stream and force_stream_usage and operation.forces_stream_usage:
        forwarded, strip_usage = _ask_for_usage(forwarded, document)
    conversation, continues = _conversation(document)
    # Without keywords, as each costs some 500 instructions (callgrind).
    return ParsedRequest(
        forwarded,
        document,
        printable(document.get("model")) or None,
        stream,
        strip_usage,
        partial(input_text_bytes, document),
        conversation,
        _user_hint(document),
        tool_results(document),
        len(body),
        continues,
    )


def parse_multipart(form: FormFacts, request_bytes: int) -> ParsedRequest:
    """Return the facts of a form, once it has passed; its body was streamed."""
    return ParsedRequest(
        body=None,
        document=None,
        model=printable(form.fields.get("model")) or None,
        stream=form.fields.get("stream") == "true",
        strip_usage=False,
        input_text_bytes=partial(_form_text_bytes, form),
        conversation=None,
        user_hint=_user_hint(form.fields),
        tool_results=(),
        request_bytes=request_bytes,
    )


def parse_empty(request_bytes: int = 0) -> ParsedRequest:
    """Return the facts of a request without a body, or with one that passes unread."""
    return ParsedRequest(
        body=None,
        document=None,
        model=None,
        stream=False,
        strip_usage=False,
        input_text_bytes=_no_text,
        conversation=None,
        user_hint=None,
        tool_results=(),
        request_bytes=request_bytes,
    )


def parse_handshake(target: str) -> ParsedRequest:
    """Return the facts of a websocket request: its query may name the model."""
    query = parse_qs(target.partition("?")[2])
    return replace(parse_empty(), model=printable(query.get("model", [None])[-1]) or None)


def _unread(body: bytes) -> ParsedRequest:
    return replace(parse_empty(len(body)), body=body)


def _ask_for_usage(body: bytes, document: Mapping[str, Any]) -> tuple[bytes, bool]:
    """Return the body that asks for usage and whether it had to be changed.

    Options that the provider will refuse (not an object, a flag that is not a boolean) stay, so that it can.
    """
    if _OPTIONS not in document:
        return with_new_member(body, _ASK_FOR_USAGE), True
    options = document[_OPTIONS]
    if options is not None and type(options) is not dict:
        return body, False
    asked = options.get(_USAGE_OPTION) if options else None
    if asked is not None and asked is not False:
        return body, False
    return with_option(body, _OPTIONS, _USAGE_OPTION), True


def _form_text_bytes(form: FormFacts) -> int:
    return form.sizes.get("prompt", 0) + MEDIA_PART_BYTES * len(form.files)


def _conversation(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return what names the conversation, and the response that is continued, if it is that."""
    conversation, previous = document.get("conversation"), document.get("previous_response_id")
    if conversation is None and previous is None:
        return None, None
    if type(conversation) is dict:
        conversation = conversation.get("id")
    if named := printable(conversation):
        return named, None
    continues = printable(previous) or None
    return continues, continues


def message_conversation(text: str) -> tuple[str | None, str | None]:
    """Return the same of a client's message in a session of responses: `response.create` has a request's members."""
    if '"previous_response_id"' not in text and '"conversation"' not in text:
        return None, None
    data = encoded(text, "surrogatepass")
    document = json_steps.read_container(data)
    if type(document) is not dict or document.get("type") != "response.create":
        return None, None
    inner = document.get("response")
    found = _conversation(inner if type(inner) is dict else document)
    json_steps.let_go(document, data)
    return found


def _user_hint(members: Mapping[str, Any]) -> str | None:
    identifier, user = members.get("safety_identifier"), members.get("user")
    if identifier is None and user is None:
        return None
    return printable(identifier) or printable(user) or None


def _no_text() -> int:
    return 0
