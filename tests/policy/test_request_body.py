"""A body is read as a provider reads it, and what is written says the same with other texts in it."""

import json
from typing import Any

import pytest

from proxy.config.schema import Limits
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.policy.request_body import ReadBody, read_body, read_message

JSON = b"application/json; charset=utf-8"


def read(body: bytes, content_type: bytes = JSON, path: str = "/v1/new") -> ReadBody:
    request = parse_json(body, match("POST", path, False), limits=Limits(), force_stream_usage=False)
    return read_body(request, content_type, Limits())


def test_body_when_nothing_changes_then_it_is_the_same_object() -> None:
    utf16_be = b"\xfe\xff" + '{"a": 1}'.encode("utf-16-be")
    for body in (b'{"a": 1}', b'["a"]', b"text", b"\xff", utf16_be, utf16_be[2:], b'\xef\xbb\xbf{"a": 1}'):
        assert read(body).sent({}) is body


def test_body_when_a_key_stands_twice_then_what_was_read_is_sent() -> None:
    assert read(b'{"a": "x", "a": "y"}').sent({}) == b'{"a":"y"}'
    assert read(b'[{"a": "x", "a": "y"}]').sent({}) == b'[{"a":"y"}]'
    assert read('{"a": "x", "a": "y"}'.encode("utf-16")).sent({}) == '{"a":"y"}'.encode("utf-16")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
def test_body_when_it_is_json_then_changes_keep_numbers_and_encoding(encoding: str) -> None:
    found = read('{"a": "x", "n": 12345678901234567890123}'.encode(encoding))
    changes: dict[Any, str] = {("a",): "y"}
    assert (found.document["a"], found.is_malformed) == ("x", False)
    assert json.loads(found.sent(changes).decode(encoding)) == {"a": "y", "n": 12345678901234567890123}
    assert json.loads(found.written(changes)) == {"a": "y", "n": 12345678901234567890123}


@pytest.mark.parametrize(
    ("body", "content_type", "text", "is_malformed"),
    [
        (b'{"a": "x"', JSON, '{"a": "x"', True),
        (b'{"a": NaN}', JSON, '{"a": NaN}', True),
        (b'"x"', JSON, '"x"', False),
        (b'["x"]', b"text/plain", '["x"]', False),
        (b"caf\xe9", JSON, "caf\u00e9", True),
        (b"caf\xe9", b"", "caf\u00e9", False),
    ],
)
def test_body_when_it_is_no_json_then_it_is_one_text(
    body: bytes, content_type: bytes, text: str, is_malformed: bool
) -> None:
    found = read(body, content_type)
    assert (found.document, found.is_malformed) == (text, is_malformed)
    assert found.sent({(): text + "\u00e9"}) in (body + b"\xe9", body + "\u00e9".encode())


def test_message_when_it_is_json_or_text_then_changes_are_written_into_it() -> None:
    for text, changes, sent in (
        ("plain", {}, "plain"), ("plain", {(): "other"}, "other"), ('{"a": "x"}', {}, '{"a": "x"}'),
        ('{"a": "x"}', {("a",): "y"}, '{"a":"y"}'), ('{"a": 1, "a": 2}', {}, '{"a":2}'), ("\ud83d", {}, "\ud83d"),
    ):  # fmt: skip
        message = read_message(text)
        assert message.sent(changes) == sent
        message.let_go()
