"""Judging by a JSON schema: the same as a well-known library says, and never for long."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.openai.json_schema import Unjudged, conforms

STEPS = 20_000
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n/~": {"type": "number"}}}},
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "value", "is_valid"),
    [
        (PERSON, {"name": "Ann", "age": 3}, True),
        (PERSON, {"name": "Ann", "age": 3.0}, True),
        (PERSON, {"name": "Ann", "age": True}, False),
        (PERSON, {"name": ""}, False),
        (PERSON, {"age": 3}, False),
        (PERSON, {"name": "Ann", "more": 1}, False),
        (TREE, {"next": {"next": {}}}, True),
        (TREE, {"next": {"next": []}}, False),
        ({"$ref": "#/$defs/a~1b/0", "$defs": {"a/b": [{"const": 1}]}}, 1, True),
        ({"type": ["string", "null"]}, None, True),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, ["a"], True),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, ["a", 1], False),
        ({"dependencies": {"a": ["b"]}}, {"a": 1}, False),
        ({"dependencies": {"a": {"required": ["b"]}}}, {"a": 1, "b": 2}, True),
        ({"multipleOf": 0.1}, 0.3, True),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], True),
        ({"uniqueItems": True}, [{"a": [1]}, {"a": [1.0]}], False),
        ({"format": "email", "title": "whatever", "x-unknown": {}}, "no address", True),
        ({"pattern": "^[a-z]+$"}, "abc", True),
        ({"pattern": "^[a-z]+$"}, "abc1", False),
        (True, 1, True),
        (False, 1, False),
    ],
)
def test_conforms_when_asked_then_as_the_standard_says(schema: Any, value: Any, is_valid: bool) -> None:
    assert conforms(schema, value, STEPS) is is_valid


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.5]) | st.text("ab1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SIZES = st.integers(0, 3)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minimum": SIZES,
            "exclusiveMaximum": SIZES,
            "maxLength": SIZES,
            "minItems": SIZES,
            "maxProperties": SIZES,
            "pattern": st.sampled_from(["a", "^b", "1$", "[ab]+"]),
            "properties": members,
            "patternProperties": st.dictionaries(st.sampled_from(["a", "[bc]"]), inner, max_size=2),
            "additionalProperties": inner,
            "propertyNames": inner,
            "required": st.lists(st.sampled_from("abc"), max_size=2),
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from("abc"), max_size=2)),
            "dependentSchemas": members,
            "prefixItems": several,
            "items": inner,
            "contains": inner,
            "minContains": SIZES,
            "maxContains": SIZES,
            "uniqueItems": st.booleans(),
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


SCHEMAS = st.recursive(st.booleans() | st.just({}) | keywords(st.booleans()), keywords, max_leaves=6)


@given(SCHEMAS, VALUES)
@settings(max_examples=150, deadline=None)
def test_conforms_when_any_schema_then_as_the_library_says(schema: Any, value: Any) -> None:
    assert conforms(schema, value, 1_000_000) is Draft202012Validator(schema).is_valid(value)


def doubled(levels: int) -> Any:
    twice = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**twice, f"a{levels}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


HOSTILE: dict[str, tuple[Any, Any]] = {
    "doubling": (doubled(40), 1),
    "itself": ({"$ref": "#"}, 1),
    "each other": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
        1,
    ),
    "deep": (nested(5000), 1),
    "elsewhere": ({"$ref": "http://127.0.0.1:9/schema.json"}, 1),
    "file": ({"$ref": "file:///etc/passwd"}, 1),
    "nowhere": ({"$ref": "#/$defs/none"}, 1),
    "anchor": ({"$ref": "#node"}, 1),
    "another base": ({"properties": {"a": {"$id": "http://x/", "$ref": "#/b"}}}, {"a": 1}),
    "through another base": ({"$defs": {"a": {"$id": "http://x/", "b": True}}, "$ref": "#/$defs/a/b"}, 1),
    "look-around": ({"pattern": "(?=a)a"}, "a"),
    "long pattern": ({"pattern": "a" * 2000}, "a"),
    "half a pair in a pattern": ({"pattern": "\ud800"}, "a"),
    "half a pair in a text": ({"pattern": "a"}, "\ud800"),
    "half a pair in a name": ({"patternProperties": {"a": True}}, {"\udfff": 1}),
    "large pattern": ({"pattern": "((a{100}){100}){100}"}, "a"),
    "many values": ({"enum": [[n] for n in range(STEPS)]}, "x"),
    "many items": ({"items": {"uniqueItems": True}}, [list(range(300))] * 100),
    "long division": ({"multipleOf": 1e-300}, 1e300),
    "zero": ({"multipleOf": 0}, 1),
    "wrong shapes": ({"properties": []}, {}),
    "wrong type": ({"type": "strnig"}, "x"),
    "wrong types": ({"type": [7]}, "x"),
    "wrong limit": ({"maximum": "7"}, 1),
    "no schema": ("string", 1),
    "deep value": ({"const": 1}, json.loads("[" * 200 + "]" * 200)),
    "unsupported": ({"unevaluatedProperties": False}, {}),
}


@pytest.mark.parametrize(("schema", "value"), HOSTILE.values(), ids=HOSTILE.keys())
def test_conforms_when_it_cannot_be_told_then_nothing_is_said_and_soon(schema: Any, value: Any) -> None:
    started = time.process_time()
    with pytest.raises(Unjudged):
        conforms(schema, value, STEPS)
    assert time.process_time() - started < 0.5


def test_pattern_when_it_would_backtrack_then_it_is_judged_at_once() -> None:
    started = time.process_time()
    assert not conforms({"type": "string", "pattern": "^(a+)+$"}, "a" * 50_000 + "b", STEPS)
    assert time.process_time() - started < 0.5
