from decimal import Decimal

import orjson
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace.values import bounded, dollars, encode, milliseconds

_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT, _VALUE, max_size=5))
def test_encode_of_any_document_is_strict_json_without_nul(document: dict[str, object]) -> None:
    def check(value: object) -> None:
        if isinstance(value, str):
            assert "\0" not in value
        elif isinstance(value, dict):
            for key, item in value.items():
                check(key)
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        elif isinstance(value, int):
            assert abs(value) < 2**63

    check(orjson.loads(encode(document)))


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9), st.integers(0, 99)))
def test_encode_of_an_ordinary_document_changes_nothing(document: dict[str, int]) -> None:
    assert orjson.loads(encode(document)) == document


def test_encode_mends_inside_tuples_and_keeps_the_rest() -> None:
    assert orjson.loads(encode({"a": ("\0", True, 1.5, None, -(10**30))})) == {
        "a": ["\ufffd", True, 1.5, None, -(2**63) + 1]
    }


@given(st.integers(0, 10**20))
def test_dollars_of_any_amount_is_exact_with_nine_digits(nanos: int) -> None:
    text = dollars(nanos)
    assert Decimal(text).scaleb(9) == nanos
    assert len(text.partition(".")[2]) == 9


@given(st.floats(0, 1e6))
def test_milliseconds_is_within_half_a_microsecond(seconds: float) -> None:
    assert abs(milliseconds(seconds) - seconds * 1000) <= 0.0006


def test_bounded_keeps_short_text_and_none() -> None:
    assert [bounded(None, 3), bounded("", 3), bounded("abc", 3), bounded("abcd", 3)] == [None, "", "abc", "abc"]
