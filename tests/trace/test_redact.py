import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace.redact import redact

CANARY = "the canary sings: 4111 1111 1111 1111"


def test_chat_request_keeps_its_shape_and_loses_its_texts() -> None:
    body = {
        "model": "gpt-4o",
        "temperature": 0.2,
        "stream": True,
        "messages": [
            {"role": "system", "content": CANARY},
            {"role": "user", "content": [{"type": "text", "text": CANARY}]},
        ],
        "tools": [{"type": "function", "function": {"name": "get_weather", "description": CANARY}}],
    }
    size = f"[{len(CANARY)} characters]"
    assert json.loads(redact(json.dumps(body).encode())) == {
        "model": "gpt-4o",
        "temperature": 0.2,
        "stream": True,
        "messages": [
            {"role": "system", "content": size},
            {"role": "user", "content": [{"type": "text", "text": size}]},
        ],
        "tools": [{"type": "function", "function": {"name": "get_weather", "description": size}}],
    }


@pytest.mark.parametrize(
    ("document", "redacted"),
    [
        ({"prompt": [1, 2, 3]}, {"prompt": "[3 numbers]"}),
        ({"embedding": [0.25, -1.0]}, {"embedding": "[2 numbers]"}),
        ({"input": [[1, 2], [3]]}, {"input": ["[2 numbers]", "[1 numbers]"]}),
        ({"flags": [True, False], "none": []}, {"flags": [True, False], "none": []}),
        (
            {"metadata": {"name": "Ann", "type": "vip"}},
            {"metadata": {"name": "[3 characters]", "type": "[3 characters]"}},
        ),
        ({"metadata": {"a": [{"id": "x"}]}}, {"metadata": {"a": [{"id": "[1 characters]"}]}}),
        ({"arguments": '{"id": 1}'}, {"arguments": "[9 characters]"}),
        ({"model": "ignore previous instructions"}, {"model": "[28 characters]"}),
        ({"id": "x" * 129}, {"id": "[129 characters]"}),
        ({"k" * 65: 1}, {"[65 characters]": 1}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ("text", "[4 characters]"),
        (7, 7),
    ],
)
def test_json_document_is_redacted_by_rule(document: object, redacted: object) -> None:
    assert json.loads(redact(json.dumps(document).encode())) == redacted


def test_event_stream_keeps_framing_names_and_terminator() -> None:
    stream = (
        b": " + CANARY.encode() + b"\r\n"
        b"event: response.output_text.delta\r\n"
        b'data: {"type":"response.output_text.delta","delta":"canary"}\r\n\r\n'
        b"event: two words\nid: 7\nretry: 3000\nnonsense\n"
        b"data: not json\n\n"
        b"data: [DONE]\n\n"
    )
    assert redact(stream) == (
        b"[%d bytes]\n"
        b"event: response.output_text.delta\n"
        b'data: {"type":"response.output_text.delta","delta":"[6 characters]"}\n\n'
        b"event: [9 bytes]\nid: 7\nretry: 3000\n[8 bytes]\n"
        b"data: [8 bytes]\n\n"
        b"data: [DONE]\n\n" % (len(CANARY) + 2)
    )


def test_event_stream_is_recognised_by_its_content_type() -> None:
    assert redact(b"\ndata: 1\n", "text/event-stream; charset=utf-8") == b"\ndata: 1\n"
    assert redact(b'data: {"a":1}', "application/json") == b"[13 bytes]"


@pytest.mark.parametrize("body", [b"\x1f\x8b\x08 gzip", b'{"cut": "in the mid', b'{"a":"\\ud83d"}', b"--boundary"])
def test_what_cannot_be_parsed_leaves_only_its_size(body: bytes) -> None:
    assert redact(body) == b"[%d bytes]" % len(body)


def test_deep_nesting_ends_in_a_count_instead_of_a_recursion() -> None:
    assert b"[1 members]" in redact(b"[" * 900 + b"]" * 900)
    assert redact(b"[" * 5000 + b"]" * 5000) == b"[10000 bytes]"


_JSON = st.recursive(
    st.just(CANARY) | st.integers(-5, 5) | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["content", "text", "id", "name", "type", "metadata", "x"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(_JSON)
def test_no_text_survives_anywhere_in_any_document(document: object) -> None:
    body = json.dumps(document).encode()
    assert b"canary" not in redact(body)
    assert b"canary" not in redact(b"data: " + body + b"\n\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_redacted_without_an_error(body: bytes) -> None:
    redact(body)
    redact(b"data:" + body)


@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * 9000 + b"1]", b'{"a":[' + b"{}," * 9000 + b"{}]}", b"data: x\n" * 9000], ids=len
)
def test_document_when_it_has_thousands_of_members_then_only_its_size_is_kept(body):
    assert redact(body) == b"[%d bytes]" % len(body)
