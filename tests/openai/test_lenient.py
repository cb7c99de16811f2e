"""What clients read although it is no JSON is read here, too; anything else is not."""

import json
import math

import pytest

from proxy.openai import json_steps
from proxy.openai.lenient import in_utf8, read_container


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b" [1]", [1]),
        (b'{"a": Infinity}', {"a": math.inf}),
        (b"[-1e999]", [-math.inf]),
        (b"NaN", None),
        (b"{NaN}", None),
        (b'{"a": nan}', None),
        (b"", None),
        (b'"text"', None),
        (b'{"a": "\xff", "b": NaN}', None),
        (b"[" * 5000 + b"NaN" + b"]" * 5000, None),
    ],
)
def test_document_when_clients_read_it_then_it_is_read(data: bytes, expected: object) -> None:
    assert read_container(data) == expected


def test_document_when_it_is_large_then_it_is_read_in_steps_up_to_a_bound() -> None:
    large = b"[NaN" + b',{"a":1}' * 60_000 + b"]"
    assert json_steps.is_slow(large)
    document = read_container(large)
    assert (len(document), document[-1]) == (60_001, {"a": 1})
    assert read_container(b'["' + b"x" * (1 << 21) + b'",NaN]') is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
def test_bytes_when_they_are_in_another_encoding_then_they_are_translated(encoding: str) -> None:
    text = json.dumps({"a": "ä\U0001f44b"}, ensure_ascii=False)
    data, found = in_utf8(text.encode(encoding))
    assert data == text.encode()
    assert data.decode().encode(found) == text.encode(encoding)


def test_bytes_when_they_need_no_translation_or_have_none_then_they_are_the_same_object() -> None:
    for data in (b"{}", b"", b"\xff\xfe{", '["ä"]'.encode()):
        same, encoding = in_utf8(data)
        assert (same is data, encoding) == (True, "utf-8")
