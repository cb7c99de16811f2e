"""Keys of a body and of what it was decoded to: as many of them only if none stands twice."""

import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.openai import key_counts
from proxy.openai.key_counts import are_equal

SAME = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""The fixtures only set sizes."""
PARTS = ('"', ":", '":', '" :', "\\", "\n", "\t", " ", "a", "é", "{", ",")
TEXTS = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=20,
)
COLONS = st.sampled_from([":", " :", ": ", "\n:", "\t :\r"])


@pytest.fixture(params=[3, 7, 1 << 18])
def piece(request, monkeypatch):
    monkeypatch.setattr(key_counts, "_PIECE", request.param)


@SAME
@given(VALUES, COLONS)
def test_keys_when_none_stands_twice_then_they_are_equal(piece, value, colon):
    body = json.dumps(value, separators=(",", colon), ensure_ascii=False).encode()
    assert are_equal(body, orjson.loads(body))


@SAME
@given(TEXTS, VALUES, VALUES, COLONS)
def test_keys_when_one_stands_twice_then_they_are_not_equal(piece, key, first, second, colon):
    name, one, other = (json.dumps(each) for each in (key, first, second))
    body = f'[{{"other":{one}, {name}{colon}{one},{name}{colon}{other}}}]'.encode()
    assert not are_equal(body, orjson.loads(body))


@pytest.mark.parametrize("escape", ["\\u0022:", '\\"\\u003a', '\\"\\u003A', '\\"\\u0020:'])
def test_keys_when_an_escape_hides_a_pair_then_nothing_is_sure(piece, escape):
    twice = f'{{"a":1,"a":"{escape}"}}'.encode()
    assert not are_equal(twice, orjson.loads(twice))
    once = f'{{"a":"{escape}"}}'.encode()
    assert not are_equal(once, orjson.loads(once))


@pytest.mark.parametrize("text", ['"' * 900_000, ":" * 900_000, '": ' * 300_000, '":"' * 300_000, "a" * 900_000])
def test_text_when_it_is_long_then_no_piece_of_it_is(text):
    for data, apart in ((text.encode(), key_counts._APART), (text, key_counts._APART_IN_TEXT)):
        pieces = list(key_counts._pieces(data, apart))
        assert data[:0].join(pieces) == data
        assert max(map(len, pieces)) < key_counts._PIECE + 8
