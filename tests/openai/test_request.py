"""Facts of a request body, and the one edit that is made to it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.exchange import ParsedRequest
from proxy.openai.input_text import MEDIA_PART_BYTES
from proxy.openai.multipart import FilePart, FormFacts
from proxy.openai.operations import UNKNOWN, match
from proxy.openai.request import message_conversation, parse_empty, parse_handshake, parse_json, parse_multipart

CHAT = match("POST", "/v1/chat/completions", False)
RESPONSES = match("POST", "/v1/responses", False)
LIMITS = Limits()
ASKED = ',"stream_options":{"include_usage":true}'


def parse(body: bytes | dict[str, Any], operation: Any = CHAT, force: bool = True) -> ParsedRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_json(raw, operation, limits=LIMITS, force_stream_usage=force)


def test_parse_json_when_the_body_is_ordinary_then_facts_and_the_same_bytes() -> None:
    body = b'{ "model": "gpt-4o", "user": "u", "messages": [{"role": "user", "content": "h\xc3\xa9"}] }\n'
    request = parse(body)
    assert request.body is body
    assert (request.model, request.stream, request.strip_usage) == ("gpt-4o", False, False)
    assert (request.user_hint, request.conversation, request.request_bytes) == ("u", None, len(body))
    assert request.input_text_bytes() == len("user") + 3
    assert request.document is not None and request.document["model"] == "gpt-4o"


@pytest.mark.parametrize(
    ("members", "conversation", "continues"),
    [
        ({}, None, None),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "conv_1", None),
        ({"conversation": {"id": "conv_2"}}, "conv_2", None),
        ({"conversation": None, "previous_response_id": "resp_1"}, "resp_1", "resp_1"),
        ({"conversation": {"id": 5}, "previous_response_id": ["x"]}, None, None),
        ({"conversation": "c" * 300}, "c" * 256, None),
    ],
)
def test_parse_json_when_a_conversation_is_named_then_it_is_told(members, conversation, continues) -> None:
    request = parse(members, RESPONSES)
    assert (request.conversation, request.continues) == (conversation, continues)


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ({"safety_identifier": "s", "user": "u"}, "s"),
        ({"user": "u"}, "u"),
        ({"user": ""}, None),
        ({"user": 1}, None),
        ({"user": "a\n"}, None),
    ],
)
def test_parse_json_when_a_user_is_named_then_the_safety_identifier_wins(members, hint) -> None:
    assert parse(members).user_hint == hint


def test_parse_json_when_the_body_cannot_be_read_then_refused() -> None:
    with pytest.raises(InvalidRequest, match="could not parse"):
        parse(b'{"model":')


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"[{}]"])
def test_parse_json_when_the_body_is_no_object_then_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        parse(body)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"{", b"\xff", b"[" * 5000])
def test_parse_json_when_the_endpoint_is_unknown_then_it_passes_unread(body: bytes) -> None:
    request = parse(body, UNKNOWN)
    assert (request.body, request.document, request.request_bytes) == (body, None, len(body))


def test_parse_json_when_keys_stand_twice_then_the_provider_gets_what_we_read() -> None:
    request = parse(b'{"model":"a","stream":false,"model":"b","seed":123456789012345678901234567890}')
    assert request.model == "b"
    assert request.body == b'{"model":"b","stream":false,"seed":123456789012345678901234567890}'
    assert request.request_bytes > len(request.body)


def test_parse_json_when_a_stream_does_not_ask_for_usage_then_it_is_asked_for_us() -> None:
    request = parse(b'{"model":"m","stream" : true , "x":1.50}\n')
    assert request.body == b'{"model":"m","stream" : true , "x":1.50' + ASKED.encode() + b"}\n"
    assert request.stream and request.strip_usage
    assert request.document is not None and "stream_options" not in request.document


@pytest.mark.parametrize(
    ("options", "sent", "strip"),
    [
        (None, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"include_usage": None}, {"include_usage": True}, True),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}, True),
        ({"n": 10**30}, {"n": 10**30, "include_usage": True}, True),
        ({"include_usage": True}, {"include_usage": True}, False),
        ({"include_usage": "yes"}, {"include_usage": "yes"}, False),
        ({"include_usage": 0}, {"include_usage": 0}, False),
        ("usage", "usage", False),
        (False, False, False),
        ([], [], False),
    ],
    ids=repr,
)
def test_parse_json_when_stream_options_are_given_then_usage_is_forced_unless_refusable(options, sent, strip) -> None:
    body = {"stream": True, "seed": 10**30, "stream_options": options, "t": 0.1}
    request = parse(body)
    assert request.body is not None
    assert json.loads(request.body) == body | {"stream_options": sent}
    assert request.strip_usage is strip
    if not strip:
        assert request.body == json.dumps(body).encode()


@pytest.mark.parametrize(
    ("body", "operation", "force"),
    [
        ({"stream": False}, CHAT, True),
        ({"stream": 1}, CHAT, True),
        ({"stream": True}, CHAT, False),
        ({"stream": True}, RESPONSES, True),
    ],
)
def test_parse_json_when_usage_cannot_or_need_not_be_forced_then_the_body_stays(body, operation, force) -> None:
    request = parse(body, operation, force)
    assert request.body == json.dumps(body).encode()
    assert request.strip_usage is False


@given(
    st.dictionaries(
        st.text(), st.none() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_parse_json_when_usage_is_forced_then_nothing_else_changes(members, indent, ascii_only) -> None:
    body = members | {"stream": True}
    body.pop("stream_options", None)
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    request = parse(raw)
    assert request.body is not None
    assert request.body.replace(ASKED.encode(), b"", 1) == raw
    assert json.loads(request.body) == body | {"stream_options": {"include_usage": True}}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "input",
                        "role",
                        "content",
                        "tool_calls",
                        "type",
                        "model",
                        "user",
                        "stream",
                        "stream_options",
                        "conversation",
                        "function",
                        "call_id",
                        "tools",
                    ]
                ),
                v,
            )
        ),
        max_leaves=30,
    )
)
def test_parse_json_when_members_have_any_type_then_it_never_fails(value: Any) -> None:
    for name in ("messages", "input", "tools", "conversation", "stream_options", "model"):
        assert parse({name: value, "stream": True}).request_bytes > 0


def test_parse_multipart_when_a_form_has_passed_then_its_fields_are_facts() -> None:
    form = FormFacts(
        {"model": "whisper-1", "stream": "true", "user": "u"},
        {"prompt": 7, "model": 9},
        (FilePart("file", 3, 99),),
        False,
    )
    request = parse_multipart(form, 1000)
    assert (request.model, request.stream, request.user_hint, request.body) == ("whisper-1", True, "u", None)
    assert (request.input_text_bytes(), request.request_bytes) == (7 + MEDIA_PART_BYTES, 1000)


def test_parse_empty_when_there_is_no_body_then_nothing_is_known() -> None:
    request = parse_empty()
    assert (request.body, request.model, request.request_bytes) == (None, None, 0)
    assert parse_empty(12).request_bytes == 12


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("/v1/realtime?model=gpt-realtime&x=1", "gpt-realtime"),
        ("/v1/realtime?model=a%2Fb", "a/b"),
        ("/v1/realtime?model=", None),
        ("/v1/realtime?intent=transcription", None),
        ("/v1/responses", None),
    ],
)
def test_handshake_when_its_query_names_a_model_then_that_is_the_model(target, model) -> None:
    assert parse_handshake(target).model == model


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"type": "response.create", "previous_response_id": "resp_1"}', ("resp_1", "resp_1")),
        ('{"type": "response.create", "response": {"previous_response_id": "resp_1"}}', ("resp_1", "resp_1")),
        ('{"type": "response.create", "conversation": {"id": "c"}, "previous_response_id": "resp_1"}', ("c", None)),
        ('{"type": "response.create", "input": "previous_response_id"}', (None, None)),
        ('{"type": "response.cancel", "previous_response_id": "resp_1"}', (None, None)),
        ('["previous_response_id"]', (None, None)),
        ('{"previous_response_id":', (None, None)),
    ],
)
def test_message_of_a_session_when_it_creates_a_response_then_names_its_conversation(
    text: str, found: tuple[str | None, str | None]
) -> None:
    assert message_conversation(text) == found
