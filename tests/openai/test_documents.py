"""Reading JSON of others: strict, exact, and tolerant of half surrogate pairs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.documents import dump_exact, load, load_exact, load_object, printable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b'"\xff"', b"\xef\xbb\xbf{}", b"{} x", b"[" * 100_000],
    ids=repr,
)
@pytest.mark.parametrize("prefix", [b"", b'["\\ud83d",'], ids=["plain", "with half a pair"])
def test_load_when_it_is_not_json_then_value_error(prefix: bytes, data: bytes) -> None:
    with pytest.raises(ValueError):
        load(prefix + data)


def test_load_when_a_surrogate_pair_is_cut_then_it_is_read_all_the_same() -> None:
    assert load(b'{"a":"\\ud83d","n":1.5}') == {"a": "\ud83d", "n": 1.5}


def test_load_object_when_it_is_something_else_then_none() -> None:
    assert load_object(b"[]") is None
    assert load_object(b"nonsense") is None
    assert load_object(b'{"a":1}') == {"a": 1}


def test_dump_exact_when_it_is_nested_too_deeply_then_value_error() -> None:
    document: object = []
    for _ in range(5_000):
        document = [document]
    with pytest.raises(ValueError, match="deeply"):
        dump_exact(document)


@given(VALUES)
def test_dump_exact_when_it_is_read_again_then_equal(value: object) -> None:
    text = json.dumps(value).encode()
    assert json.loads(dump_exact(load_exact(text))) == json.loads(text)


@given(st.text(alphabet=st.characters(codec=None)))
def test_dump_exact_when_text_is_anything_then_ascii_if_it_has_to_be(text: str) -> None:
    assert dump_exact(text).isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize(
    ("value", "name"),
    [("gpt-4o", "gpt-4o"), ("é 模型", "é 模型"), ("x" * 300, "x" * 256), ("", ""), (5, ""), (None, "")]
    + [(f"a{bad}b", "") for bad in ("\x00", "\n", "\x1b", "\u2028", "\ud83d")],
)
def test_printable_when_a_name_is_given_then_only_what_is_fit_to_show(value: object, name: str) -> None:
    assert printable(value) == name


def test_printable_when_characters_take_many_bytes_then_cut_between_two() -> None:
    assert printable("語" * 200) == "語" * 170
