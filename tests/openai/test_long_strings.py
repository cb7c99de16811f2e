"""Documents with long strings: the same value and the same errors as read at once, in short calls."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.openai import long_strings
from proxy.openai.documents import load
from proxy.openai.long_strings import LONG_BYTES, behind_string, load_parted

SAME = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The fixtures only set sizes."""
PARTS = ("a", "é", "ж", "\U0001f600", '"', "\\", "\\\\", "\n", "\ud83d", "words ", "x" * 40, "\x01", ":", "},{")
LONG = {
    "prose": "many words, " * 300_000,
    "two bytes": "жизнь " * 400_000,
    "quotes": '"' * 2_000_000,
    "backslashes": "\\" * 2_000_000,
    "surrogates": "\U0001f600" * 400_000,
    "escapes": "\x01" * 400_000,
    "all of them": 'ж"\\\U0001f600\x01' * 90_000,
}


@pytest.fixture
def small(monkeypatch):
    for name, size in {"LONG_BYTES": 60, "_PIECE": 30, "_WINDOW": 24, "_NEAR": 9}.items():
        monkeypatch.setattr(long_strings, name, size)


def read(reader, body):
    try:
        return reader(body)
    except ValueError as error:
        return str(error)


@SAME
@given(st.lists(st.lists(st.sampled_from(PARTS), max_size=60).map("".join), max_size=4), st.booleans())
def test_document_when_its_strings_are_long_then_it_is_what_one_call_reads(small, texts, is_ascii):
    for document in (texts, {text: {"a": text, "b": [text, 1, None]} for text in texts}, "".join(texts)):
        text = json.dumps(document, ensure_ascii=is_ascii)
        body = text.encode("utf-8", "replace")
        assert load_parted(body) == load(body)


@SAME
@given(st.lists(st.sampled_from([*PARTS, "\\u12", '"', "\\ud83d", "\\ude00", "\\x"]), max_size=40).map("".join))
def test_document_when_it_is_malformed_then_the_error_is_that_of_one_call(small, text):
    for before, behind in (("[", "]"), ('{"a":"', '"}'), ('["', "")):
        body = f"{before}{text}{behind}".encode("utf-8", "replace")
        assert read(load_parted, body) == read(load, body)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("is_ascii", [True, False])
def test_string_when_it_is_megabytes_long_then_it_is_decoded_in_pieces(monkeypatch, text, is_ascii):
    sizes = []

    def noted(data):
        sizes.append(len(data))
        return load(data)

    monkeypatch.setattr(long_strings, "load", noted)
    body = json.dumps({"a": 1, "b": ["c", text]}, ensure_ascii=is_ascii).encode()
    assert load_parted(body) == {"a": 1, "b": ["c", text]}
    assert max(sizes) <= LONG_BYTES // 2 + 8


def test_string_when_it_is_a_key_then_it_is_left_in():
    body = json.dumps({"k" * LONG_BYTES * 2: 1}).encode()
    assert load_parted(body) == load(body)


@pytest.mark.parametrize(("body", "end"), [(b'"a\\"b" c', 6), (b'"\\\\"c', 4), (b'"abc', 4), (b'"', 1)])
def test_end_of_a_string_when_quotes_are_escaped_then_behind_the_one_that_is_not(body, end):
    assert behind_string(body, 0) == end
