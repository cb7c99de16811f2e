"""The JSON guard, and the bytes that go upstream."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.openai.json_body import parse_body, unambiguous, with_new_member, with_option

LIMITS = Limits()
MIB = 1 << 20

KEYS = st.sampled_from(["a", "b", "stream", 'x": ', '":', "\u00e9", "\\", "\ud83d"]) | st.text(max_size=3)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -(2**63) - 1, 10**30, 1e300, 0.1, -0.0])
    | st.sampled_from(['a":1', 'x" : y', '\\":', '": ', '{"a":1,"a":2}', "\ud83d", "é😀"])
    | st.text(max_size=6)
)


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> str:
    """Write an object as some client might: any spacing, any escapes, keys that may stand twice."""
    space = st.sampled_from(["", "", " ", "\n\t"])
    members = []
    for key in draw(st.lists(KEYS, max_size=4)):
        if depth and draw(st.booleans()):
            value = draw(objects(depth - 1))
            value = f"[{value}]" if draw(st.booleans()) else value
        else:
            value = draw(written(draw(SCALARS)))
        members.append(draw(space) + draw(written(key)) + draw(space) + ":" + draw(space) + value + draw(space))
    return draw(space) + "{" + ",".join(members) + draw(space) + "}" + draw(space)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if isinstance(value, str):
        if draw(st.booleans()):
            text = '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value) + '"'
        text = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
    return text


def has_duplicates(text: str) -> bool:
    found = False

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len(dict(pairs)) != len(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return found


@given(objects())
def test_unambiguous_when_keys_stand_twice_then_new_bytes_of_equal_value_else_the_same(text: str) -> None:
    body = text.encode()
    forwarded = unambiguous(body, parse_body(body, LIMITS))
    if has_duplicates(text):
        assert not has_duplicates(forwarded.decode())
    else:
        assert forwarded is body
    assert json.loads(forwarded) == json.loads(text)
    assert list(json.loads(forwarded)) == list(json.loads(text))


@given(objects())
def test_with_option_when_a_document_is_given_then_nothing_else_changes(text: str) -> None:
    document = json.loads(text) | {"stream_options": {"extra": 10**30}}
    changed = json.loads(with_option(json.dumps(document).encode(), "stream_options", "include_usage"))
    assert changed.pop("stream_options") == {"extra": 10**30, "include_usage": True}
    del document["stream_options"]
    assert changed == document


@given(objects())
def test_with_new_member_when_spliced_then_the_rest_is_byte_for_byte(text: str) -> None:
    body = text.replace("{", '{"first":"}",', 1).encode() if json.loads(text) else b'{ "first" : "}" } \n'
    longer = with_new_member(body, b'"new":true')
    assert longer.replace(b',"new":true', b"", 1) == body
    assert json.loads(longer) == json.loads(body) | {"new": True}


def test_unambiguous_when_orjson_cannot_write_the_document_then_it_is_walked() -> None:
    limits = Limits(json_depth=600)
    body = b"[" * 300 + b'{"a":1,"a":2}' + b"]" * 300
    assert b'"a":1' not in unambiguous(body, parse_body(body, limits))
    body = b"[" * 300 + b'{"a":1}' + b"]" * 300
    assert unambiguous(body, parse_body(body, limits)) is body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[" * 1_000_000, "invalid_json"),
        (b'{"a":' * 1_000_000, "invalid_json"),
        (b"[" * 200 + b"]" * 200, "json_too_deep"),
        (b"[" + b"{}," * (4 * MIB // 3) + b"{}]", "json_too_complex"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":-Infinity}', "invalid_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"a":1e999}', "invalid_json"),
        (b'\xef\xbb\xbf{"a":1}', "invalid_json"),
        ('{"a":1}'.encode("utf-16"), "invalid_json"),
        ('{"a":1}'.encode("utf-16-le"), "invalid_json"),
        (b'{"a":"\xc0\xaf"}', "invalid_json"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_json"),
        (b'{"a":1} {}', "invalid_json"),
        (b'{"a":1}garbage', "invalid_json"),
        (b'{"a":"\\ud83d","b":NaN}', "invalid_json"),
        (b'["\\ud83d",' + b"[" * 1_000_000, "invalid_json"),
        (b"{'a':1}", "invalid_json"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_parse_body_when_it_is_malformed_or_beyond_a_limit_then_refused_at_once(body: bytes, code: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest) as caught:
        parse_body(body, LIMITS)
    assert time.process_time() - began < 0.1
    assert (caught.value.http_status, caught.value.code) == (400, code)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ == (code == "invalid_json")


def test_parse_body_when_it_is_refused_then_nothing_of_it_is_quoted() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_body(b'{"key":"sk-secret" oops', LIMITS)
    assert "secret" not in caught.value.message
    assert "could not parse the JSON body of your request" in caught.value.message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_parse_body_when_it_is_not_in_plain_utf_8_then_the_error_says_so(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="in UTF-8, without a byte order mark"):
        parse_body('{"model": "m"}'.encode(encoding), LIMITS)


def test_parse_body_when_depth_is_at_the_limit_then_accepted() -> None:
    limits = Limits(json_depth=40)
    body = b'{"a":[' * 20 + b"1" + b"]}" * 20
    assert parse_body(body, limits)
    assert parse_body(b"[" + b"[]," * 100 + b"[]]", limits)
    with pytest.raises(InvalidRequest):
        parse_body(b"[" + body + b"]", limits)


LARGE = b'"messages":[' + b",".join([b'{"role":"user","content":"a, b"}'] * 20_000) + b"]}"


@pytest.mark.parametrize(
    ("start", "is_kept"),
    [
        (b'{"seed":123456789012345678901234567890,', True),
        (b'{"seed":1,"seed":123456789012345678901234567890,', False),
        (b'{"messages":[],"seed":123456789012345678901234567890,', False),
    ],
    ids=["no key twice", "in one piece", "far apart"],
)
def test_unambiguous_when_large_then_as_when_small(start: bytes, is_kept: bool) -> None:
    body = start + LARGE
    sent = unambiguous(body, parse_body(body, LIMITS))
    assert (sent is body) is is_kept
    assert json.loads(sent) == json.loads(body)


def test_unambiguous_when_large_with_escapes_that_hide_quotes_then_keys_are_compared() -> None:
    body = b'{"a\\u0022:":1, ' + LARGE
    assert unambiguous(body, parse_body(body, LIMITS)) is body
    body = b'{"a\\u0022:":1, "a\\":":1,' + LARGE
    assert json.loads(unambiguous(body, parse_body(body, LIMITS))) == json.loads(body)


def test_parse_body_when_large_and_malformed_then_refused_with_a_place() -> None:
    with pytest.raises(InvalidRequest, match=r"\(near byte \d+\)") as caught:
        parse_body(b"{" + LARGE[:-2] + b"x]}", LIMITS)
    assert caught.value.code == "invalid_json"
