"""Taking forced usage out of chunks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.stream_usage import strip_usage

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["usage", ',"usage":null', '"usage": null,', "é"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", '"usage', "choices", "a", "\u00fc"]), inner, max_size=4)
    ),
    max_leaves=10,
)


def strip(data: bytes) -> bytes | None:
    return strip_usage(data, json.loads(data))


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b'{"choices":[]}', b'{"choices":[]}'),
        (b'{"id":"x","choices":[{"a":1}],"usage":null}', b'{"id":"x","choices":[{"a":1}]}'),
        (b'{ "id" : "x" , "usage" : null , "b" : 1 }', b'{ "id" : "x"  , "b" : 1 }'),
        (b'{"usage":null,"b":1}', b'{"b":1}'),
        (b'{"usage":null}', b"{}"),
        (b'{"choices":[],"usage":null,"x":1}', b'{"choices":[],"x":1}'),
        (b'{"choices":[],"usage":{"prompt_tokens":1}}', None),
        (b'{"choices":[{}],"usage":{"prompt_tokens":1}}', b'{"choices":[{}],"usage":{"prompt_tokens":1}}'),
        (b'{"usage":{"prompt_tokens":1}}', b'{"usage":{"prompt_tokens":1}}'),
        (b'{"choices":[],"usage":7}', b'{"choices":[],"usage":7}'),
        (b'{"c":{"a":1,"usage":null},"usage":null}', b'{"c":{"a":1,"usage":null}}'),
        (b'{"usage":null,"c":{"a":1,"usage":null}}', b'{"c":{"a":1,"usage":null}}'),
        (b'{"c":", \\"usage\\":null","usage":null}', b'{"c":", \\"usage\\":null"}'),
        (b'{"c":"\\u00e9","usage":null}', b'{"c":"\\u00e9"}'),
        (b'{"c":{"a":1,"usage":null},"us\\u0061ge":null}', b'{"c":{"a":1,"usage":null},"us\\u0061ge":null}'),
        (b'{"us\\u0061ge":null}', b'{"us\\u0061ge":null}'),
        (b'{"a":1,\n"usage":null}', b'{"a":1}'),
    ],
)
def test_strip_usage_when_a_chunk_is_given_then_only_forced_usage_goes(data: bytes, left: bytes | None) -> None:
    assert strip(data) == left


def test_strip_usage_when_there_are_too_many_candidates_then_the_chunk_stays() -> None:
    inner = b",".join([b'{"a":1,"usage":null}'] * 20)
    data = b'{"c":[%b],"usage":null}' % inner
    assert strip(data) == data


@given(st.dictionaries(st.sampled_from(["a", "b", "\u00fc", '"usage']), JSON, max_size=4), st.integers(0, 4), st.data())
def test_strip_usage_when_null_is_its_value_then_exactly_that_member_goes(members: Any, place: int, data: Any) -> None:
    items = list(members.items())
    items.insert(place, ("usage", None))
    spaced = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    text = json.dumps(dict(items), ensure_ascii=data.draw(st.booleans()), separators=spaced).encode()
    left = strip(text)
    assert left is not None
    if left != text:
        assert list(json.loads(left).items()) == list(members.items())
    else:
        assert text.count(b'"usage"') > 1
