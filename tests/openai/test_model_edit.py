import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.model_edit import with_model, without_usage_option

TEXT = st.text(max_size=12)
NAMES = st.one_of(TEXT, st.sampled_from(["model", 'a"model', "mod\\u0065l", '"model":', "stream_options"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)


@given(
    members=st.dictionaries(NAMES, VALUES, max_size=5),
    model=TEXT,
    new=TEXT,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_model_when_replaced_then_the_body_is_equal_but_for_it(members, model, new, ascii_only, indent):
    document = {**members, "model": model}
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    try:
        json.loads(body.decode())
    except UnicodeDecodeError:
        return
    edited = with_model(body, new.encode("utf-8", "replace").decode(), has_model=True)
    assert json.loads(edited) == {**document, "model": new.encode("utf-8", "replace").decode()}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"auto","a":1}', b'{"model":"x","a":1}'),
        (b'{ "a" : [1, 2 ],\n "model" :  "au\\"to" }', b'{ "a" : [1, 2 ],\n "model" :  "x" }'),
        (b'{"t":"\xc3\xaf \\"model\\": \\"y\\"","model":"auto"}', b'{"t":"\xc3\xaf \\"model\\": \\"y\\"","model":"x"}'),
    ],
)  # fmt: skip
def test_model_when_it_stands_once_then_every_other_byte_stays(body, expected):
    assert with_model(body, "x", has_model=True) == expected


@pytest.mark.parametrize(
    "body", [b'{"a":{"model":"inner"},"model":"auto"}', b'{"mod\\u0065l":"auto","a":{"model":"inner"}}']
)
def test_model_when_another_key_reads_the_same_then_only_the_outermost_changes(body):
    edited = json.loads(with_model(body, "x", has_model=True))
    assert (edited["model"], edited["a"]["model"]) == ("x", "inner")


def test_model_when_the_body_has_none_then_it_gets_one():
    assert json.loads(with_model(b'{"a":{"model":"inner"}}', "x", has_model=False))["model"] == "x"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": 1, "stream_options": {"include_usage": True}}, {"a": 1}),
        ({"stream_options": {"include_usage": True, "b": 2}}, {"stream_options": {"b": 2}}),
        ({"stream_options": None}, {}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_usage_option_when_taken_out_then_the_rest_stays(body, expected):
    assert json.loads(without_usage_option(json.dumps(body).encode())) == expected
