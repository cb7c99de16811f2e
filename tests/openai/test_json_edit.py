import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.json_edit import edited, written

DOCUMENT = rb'{"a": {"b":[1,{"c":"x\"y"},"y"]}, "c\u0061":"q" , "e":{}, "f":[],"a":"z", "l":[true,[null,{"n":[]}]]}'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, DOCUMENT),
        ({("a", "b", 1, "c"): b'"N"'}, DOCUMENT.replace(rb'"x\"y"', b'"N"')),
        ({("a", "b", 0): b"7", ("a", "b", 2): b'"N"'}, DOCUMENT.replace(b"[1,", b"[7,").replace(b'"y"]', b'"N"]')),
        ({("ca",): b'"N"'}, DOCUMENT.replace(b'"q"', b'"N"')),
        ({("a",): b"0"}, DOCUMENT.replace(rb'{"b":[1,{"c":"x\"y"},"y"]}', b"0").replace(b'"z"', b"0")),
        ({("e",): b"0", ("f",): b"1"}, DOCUMENT.replace(b"{}", b"0").replace(b'"f":[]', b'"f":1')),
        ({("l", 1): b"0", ("l", 1, 1, "n"): b"1"}, DOCUMENT.replace(b'[null,{"n":[]}]', b"0")),
        ({("l", 0): b"0", ("no",): b"1", ("l", 9): b"2"}, DOCUMENT.replace(b"true", b"0")),
    ],
)
def test_document_when_values_change_then_every_other_byte_stays(values, expected):
    assert edited(DOCUMENT, values) == expected


def test_document_when_it_is_a_single_value_then_that_can_change():
    assert edited(b' "a" ', {(): b'"b"'}) == b' "b" '
    assert edited(b" [1] ", {(): b"2"}) == b" 2 "


@pytest.mark.parametrize(
    ("text", "like", "expected"),
    [
        ("é\n", b"{}", rb'"\u00e9\n"'),
        ("é\n", "é".encode(), '"é\\n"'.encode()),
        ("\ud83d é", "é".encode(), rb'"\ud83d \u00e9"'),
    ],
)
def test_text_when_written_then_in_the_manner_of_its_document(text, like, expected):
    assert written(text, like) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for step, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(member, (*path, step))


@given(JSON, st.data(), st.sampled_from([None, 1]))
def test_document_when_any_of_its_values_changes_then_it_reads_like_that(document, data, indent):
    path = data.draw(st.sampled_from(list(places(document))))
    changed = json.loads(edited(json.dumps(document, indent=indent).encode(), {path: b'"NEW"'}))
    if not path:
        assert changed == "NEW"
        return
    around = document
    for step in path[:-1]:
        around = around[step]
    around[path[-1]] = "NEW"
    assert changed == document


@pytest.mark.parametrize("text", ['\\"' * 5000, "a" * 70_000, "\\\\" * 300, "é" * 200_000, "b\n" * 150_000])
def test_document_when_its_strings_are_long_then_they_are_read_and_written_alike(text):
    data = json.dumps({"a": text, "b": [text, 1]}, ensure_ascii=False).encode()
    changed = edited(data, {("b", 0): written(text[::-1], data), ("b", 1): b"2"})
    assert json.loads(changed) == {"a": text, "b": [text[::-1], 2]}
    assert edited(data, {("a",): written(text, data)}) == data
